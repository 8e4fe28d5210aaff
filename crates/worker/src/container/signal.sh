# Sends $signal to every process of a container but $process, those above it, and this shell. $process runs the steps below an
# entrypoint, and the container ends with either of them.
spared=" $$ "
while [ "$process" -gt 0 ]; do
    spared="$spared$process "
    while read -r key value; do
        [ "$key" = PPid: ] && break
    done <"/proc/$process/status" || value=0
    process=$value
done
# Some may be born while others are told.
for round in 1 2 3; do
    for directory in /proc/[0-9]*; do
        process=${directory#/proc/}
        case $spared in
            *" $process "*) ;;
            *) kill -s "$signal" "$process" ;;
        esac
    done
    [ "$signal" = KILL ] || break
done 2>/dev/null

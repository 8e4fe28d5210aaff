# A visit to what a container job left: its files and its /tmp as volumes of the same layers, if there are any, and one container of its image.
# $1 the engine's program, $2 how to reach the engine, $3 the name of container and volume, $4 the volume's options or nothing, $5 an image to
# fetch or nothing, $6 a label, $7 the note that there is a visit, $8 the options of a volume for /tmp or nothing; then the arguments of `run`.
# HOME is that of the engine's program, which has its logins for registries there.
engine=$1 reach=$2 name=$3 options=$4 image=$5 label=$6 note=$7 temporary=$8
shift 8
if [ -t 0 ]; then set -- -t "$@"; fi
code=0
if [ -n "$image" ] && ! "$engine" "$reach" pull "$image" >&2; then
    echo "the job's image is not here and could not be fetched; if its registry needs a login: $engine login, as the user of ropewalk here" >&2
    code=125
fi
volume() {
    if [ -n "$2" ] && [ $code = 0 ]; then
        "$engine" "$reach" volume create --label "$label" --driver local --opt type=overlay --opt device=overlay --opt "o=$2" "$1" >/dev/null || code=125
    fi
}
volume "$name" "$options"
volume "$name-tmp" "$temporary"
if [ $code = 0 ]; then
    "$engine" "$reach" run --rm -i --name "$name" --label "$label" "$@"
    code=$?
fi
if [ -n "$temporary" ]; then set -- "$name-tmp"; else set --; fi
if [ -n "$options" ]; then set -- "$@" "$name"; fi
if [ $# = 0 ] || "$engine" "$reach" volume rm -f "$@" >/dev/null; then rm -f "$note"; fi
exit "$code"

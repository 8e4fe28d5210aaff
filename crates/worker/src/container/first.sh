# The first process of a job's container, or what its entrypoint runs: runs one step after the other. $1 is the folder that it
# shares with the worker.
# A step is asked for by its number, which it reads from `control`; its end is told in `end`. Whoever ends this process
# ends all others, and so does the worker when it dies between two steps, since `control` then has no writer.
exec 3<"$1/control" 4>"$1/end" || exit 1
echo "$$ ready" >&4
while read -r step <&3; do
    /bin/sh "$1/step-$step" >"$1/stdout-$step" 2>"$1/stderr-$step" </dev/null 3<&- 4>&-
    code=$?
    { echo "$code"; times; echo .; } >&4
done

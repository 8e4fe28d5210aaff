# A visit to what a container job left: its files as a volume of the same layers, if there are any, and one container of its image.
# $1 the engine's program, $2 how to reach the engine, $3 the volume's name, $4 its options or nothing; then the arguments of `run`.
engine=$1 reach=$2 volume=$3 options=$4
shift 4
if [ -t 0 ]; then set -- -t "$@"; fi
if [ -n "$options" ]; then
    "$engine" "$reach" volume create --driver local --opt type=overlay --opt device=overlay --opt "o=$options" "$volume" >/dev/null || exit 125
fi
"$engine" "$reach" run --rm -i "$@"
code=$?
if [ -n "$options" ]; then "$engine" "$reach" volume rm -f "$volume" >/dev/null; fi
exit "$code"

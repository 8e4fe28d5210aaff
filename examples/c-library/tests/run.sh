#!/bin/sh
# Compares the program with known sums, and writes a JUnit report.
set -eu
program=$1
report=$2
failures=0
cases=''
check() { # name, input, expected
    found=$(printf '%s' "$2" | "$program")
    if [ "$found" = "$3" ]; then
        echo "ok $1"
        cases="$cases<testcase classname=\"crc32\" name=\"$1\" time=\"0.001\"/>"
    else
        echo "error: $1: expected $3, found $found" >&2
        cases="$cases<testcase classname=\"crc32\" name=\"$1\" time=\"0.001\"><failure message=\"expected $3, found $found\"/></testcase>"
        failures=$((failures + 1))
    fi
}
check empty '' 00000000
check digits 123456789 cbf43926
check sentence 'The quick brown fox jumps over the lazy dog' 414fa339
mkdir -p "$(dirname "$report")"
echo "<testsuite name=\"crc32\" tests=\"3\" failures=\"$failures\">$cases</testsuite>" > "$report"
exit "$failures"

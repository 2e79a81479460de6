#!/bin/sh
# Called by the challenge: sh /workspace/run_pixel_brain.sh DIR_IN DIR_OUT
lsr mood pixel -i "$1" -o "$2"
status=$?
# Some scans could not be used, which is said. The challenge takes a missing file for zeros, but would
# throw away all the others for an exit status.
[ "$status" -eq 3 ] && exit 0
exit "$status"

#!/bin/sh
# Called by the challenge for the abdominal scans, of which there is no model.
echo "lsr: error: there is no model of the abdomen; this container is for the brain task" >&2
exit 2

#!/bin/sh
# Predicts what has come in since last night. Prints nothing, unless somebody must look: cron mails what it prints.
#
#   crontab:  MAILTO=imaging@example.org
#             30 2 * * *  /opt/dinomed3d/predict.sh
#
# The folders may be set in the crontab as well; flock keeps a second run out while one is still at work.
IN=${IN:-/srv/scans}
OUT=${OUT:-/srv/masks}
MODEL=${MODEL:-/srv/models/liver.zip}
LOG=${LOG:-/var/log/dinomed3d-predict.log}

(
    flock -n 9 || { echo "the run of the night before is still at work"; exit 4; }
    dinomed3d predict -i "$IN" -o "$OUT" -m "$MODEL" >"$LOG" 2>&1
) 9>"$LOG.lock"
code=$?
case $code in
    0) ;;  # all cases are done
    3) ;;  # cases failed, but only such as had failed in an earlier run: that was mailed then
    *) echo "dinomed3d predict: exit code $code; the end of $LOG:"; tail -n 30 "$LOG" ;;
esac
exit $code

# Print the units that use a file which has changed since they started, as lines unit=NAME; bundle.sh has noted them.
# Where DOING is true, restart those that run. The note goes last: a run that is cut off is done again.
outdated=/run/coupler/outdated
units=$(sort -u $outdated 2>/dev/null | while read -r unit; do
    case $(systemctl is-active "$unit") in inactive) ;; *) echo "$unit" ;; esac
done)
[ -z "$units" ] || printf '%s\n' "$units" | sed 's/^/unit=/'
if [ "$DOING" = true ]; then
    # shellcheck disable=SC2086 # the units are words of their own
    if [ -n "$units" ]; then
        systemctl reset-failed $units 2>/dev/null
        # What takes long, or fails, is for the look at the node's health to tell.
        systemctl restart $units
    fi
    rm -f $outdated
fi
exit 0

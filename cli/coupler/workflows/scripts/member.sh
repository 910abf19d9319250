# Is this node a member of etcd, which runs as UNIT? Prints held= and why, where it may not start, failing=yes where it
# starts again and again, and status=, what it says of itself. Gives a start that is under way a few seconds.
for _ in $(seq 25); do
    case $(systemctl show --property=ActiveState,SubState "$UNIT" | sed 's/.*=//' | paste -sd' ') in
        'active running' | 'inactive dead' | *auto-restart) break ;;
        *) [ ! -s /run/coupler/etcd-held ] || break ;;
    esac
    sleep 0.2
done
printf 'held=%s\n' "$(cat /run/coupler/etcd-held 2>/dev/null)"
[ -e /run/coupler/identity.env ] || exit 0
. /run/coupler/identity.env
pki=/etc/coupler/pki/etcd
status=$(curl --silent --noproxy '*' --max-time 3 --cacert $pki/ca.crt --cert $pki/client.crt --key $pki/client.key \
    --data '{}' "$SCHEME://$COUPLER_ADDRESS:2379/v3/maintenance/status" 2>/dev/null | tr -d '\n')
printf 'status=%s\n' "$status"
if [ -z "$status" ] && [ "$(systemctl show --property=NRestarts --value "$UNIT")" != 0 ]; then
    echo failing=yes
fi

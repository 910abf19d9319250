# What a node reports, as lines NAME=VALUE. Changes nothing.
value() { printf '%s=%s\n' "$1" "$2"; }
value time "$(date +%s)"
value status "$(cat /run/coupler/status.json 2>/dev/null)"
value os_name "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release | tr -d '"')"
sed 's/^/artifact=/' /run/coupler/artifacts 2>/dev/null
# One block of properties for each unit, in an order that is systemd's own, with an empty line between two units.
# shellcheck disable=SC2086 # the units are words of their own
systemctl show --property=Id,LoadState,ActiveState,SubState $UNITS | sed 's/^/unit=/'
for certificate in /etc/coupler/pki/*/*.crt; do
    [ -e "$certificate" ] && value certificate "$certificate $(base64 < "$certificate" | tr -d '\n')"
done
# A node of an earlier Coupler has no such script: then what etcd says below has to do.
if [ -x /opt/bin/coupler-health ] && [ -e /run/coupler/identity.env ]; then
    /opt/bin/coupler-health | sed 's/^/health=/'
fi
if [ -e /run/coupler/roles/etcd ]; then
    . /run/coupler/identity.env
    pki=/etc/coupler/pki/etcd
    ask() { # NAME PATH [BODY]
        value "etcd_$1" "$(curl --silent --max-time 3 --cacert $pki/ca.crt --cert $pki/client.crt --key $pki/client.key \
            ${3:+--data "$3"} "$SCHEME://$COUPLER_ADDRESS:2379$2" 2>/dev/null | tr -d '\n')"
    }
    ask health /health
    ask status /v3/maintenance/status '{}'
    ask members /v3/cluster/member/list '{}'
    ask alarms /v3/maintenance/alarm '{"action": "GET"}'
fi

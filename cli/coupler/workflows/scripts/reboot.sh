# Who is this machine to locksmith, and is a reboot due? Lines NAME=VALUE. Changes nothing.
printf 'machine_id=%s\n' "$(cat /etc/machine-id)"
[ ! -e /run/coupler/healthy ] || echo healthy=yes
timeout 5 update_engine_client -status 2>/dev/null | sed 's/^/update=/'

# What a machine is like, as lines NAME=VALUE. Changes nothing. Needs no root; run as root it also sees who has a port.
PATH=$PATH:/usr/sbin:/sbin
value() { printf '%s=%s\n' "$1" "$2"; }
os() { sed -n "s/^$1=//p" /etc/os-release 2>/dev/null | tr -d '"'; }
value os_id "$(os ID)"
value os_variant "$(os VARIANT_ID)"
value os_version "$(os VERSION_ID)"
value os_name "$(os PRETTY_NAME)"
value time "$(date +%s)"
value root "$(id -u)"
value addresses "$(ip -o -4 address show scope global | awk '{ sub("/.*", "", $4); printf "%s ", $4 }')"
value networks "$(ip -o -4 address show scope global | awk '{ printf "%s ", $4 }')"
value macs "$(cat /sys/class/net/*/address 2>/dev/null | tr '\n' ' ')"
for program in coreos-cloudinit git curl systemctl tar base64 flock; do
    command -v "$program" > /dev/null || value missing "$program"
done
for folder in /etc /opt /run /var/lib; do
    value free "$folder $(df -Pk "$folder" | awk 'NR == 2 { print $4 }')"
    [ -w "$folder" ] || value unwritable "$folder"
done
value systemd "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
for program in haproxy nginx; do
    path=$(PATH=/opt/bin:$PATH command -v "$program") && value balancer "$program $("$path" -v 2>&1 | head -n 1)"
done
# Who listens where: address, processes, and the unit of the first of them.
ss -Hltnp 2>/dev/null | awk '{ print $4 " " $6 }' | while read -r address process; do
    pid=${process#*pid=}
    value listener "$address $process $(sed -n 's|.*/\([^/]*\.service\).*|\1|p' "/proc/${pid%%,*}/cgroup" 2>/dev/null | head -n 1)"
done

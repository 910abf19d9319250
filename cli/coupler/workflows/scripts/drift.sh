# How a node is, beside what a document says, as lines NAME=VALUE. Changes nothing.
#
# FILES, in base64: a line for each expected file: index, SHA-256, whether its content may be told, path.
# UNITS and, with commas, the PROPERTIES of each that systemctl shows.
value() { printf '%s=%s\n' "$1" "$2"; }
value applied "$(cat /run/coupler/applied 2>/dev/null)"
sed 's/^/artifact=/' /run/coupler/artifacts 2>/dev/null
printf '%s' "$FILES" | base64 -d | while read -r index sum tell path; do
    if [ ! -f "$path" ]; then
        state=missing
        [ ! -e "$path" ] && [ ! -L "$path" ] || state=other
        value file "$index $state"
        continue
    fi
    found=$(sha256sum < "$path" | cut -d' ' -f1)
    content=
    [ "$found" = "$sum" ] || [ "$tell" = no ] || content=$(head -c 1000000 "$path" | base64 | tr -d '\n')
    value file "$index $found $(stat -L -c '%a %U %G %u %g' "$path") $content"
done
for unit in $UNITS; do
    systemctl show --property="$PROPERTIES" -- "$unit" | while read -r property; do
        value unit "$unit $property"
    done
    for drop_in in /etc/systemd/system/"$unit".d/*.conf /run/systemd/system/"$unit".d/*.conf; do
        [ ! -e "$drop_in" ] || value drop_in "$drop_in"
    done
done

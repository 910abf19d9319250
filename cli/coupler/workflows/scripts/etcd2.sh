# A request to etcd's v2 API, asked on the node: METHOD, URL and BODY, which is url-encoded. Prints code= and body=.
pki=/etc/coupler/pki/etcd
answer=$(curl --silent --show-error --max-time 10 --cacert $pki/ca.crt --cert $pki/client.crt --key $pki/client.key \
    --request "$METHOD" ${BODY:+--data "$BODY"} --write-out '\n%{http_code}' "$URL" 2>&1)
printf 'code=%s\n' "${answer##*
}"
printf 'body=%s\n' "$(printf '%s' "${answer%
*}" | tr '\n' ' ')"

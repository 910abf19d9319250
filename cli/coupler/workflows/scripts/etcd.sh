# A request to etcd, asked on the node: METHOD, URL, and BODY, which is JSON or url-encoded. Prints code= and body=.
pki=/etc/coupler/pki/etcd
case $BODY in '{'*) type=application/json ;; *) type=application/x-www-form-urlencoded ;; esac
# A member without a leader takes what speaks HTTP/2 on its peers' port for gRPC.
answer=$(curl --silent --show-error --noproxy '*' --http1.1 --connect-timeout 3 --max-time 10 \
    --cacert $pki/ca.crt --cert $pki/client.crt --key $pki/client.key \
    --request "$METHOD" ${BODY:+--header "Content-Type: $type" --data "$BODY"} --write-out '\n%{http_code}' "$URL" 2>&1)
printf 'code=%s\n' "${answer##*
}"
printf 'body=%s\n' "$(printf '%s' "${answer%
*}" | tr '\n' ' ')"

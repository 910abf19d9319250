#!/bin/sh
# The end of `make demo`: a web server on node-1, announced in etcd, and a request to it through the balancer of node-3.
#   demo.sh CLUSTER      the command `cluster`; to be run in the folder of a lab with three machines that is called demo
set -eu
cluster=$1

# shellcheck disable=SC2016 # the variables are the machine's
"$cluster" lab exec node-1 -- sh -lc '
. /run/coupler/identity.env
cat > /run/hello.conf << "EOF"
daemon off;
pid /run/hello.pid;
error_log stderr;
events {}
http { access_log off; server { listen 8001; location / { return 200 "hello from $hostname\n"; } } }
EOF
systemctl --quiet is-active hello || systemd-run --quiet --unit=hello nginx -c /run/hello.conf
etcdctl put /services/hello/node-1 "$COUPLER_ADDRESS:8001" > /dev/null'
echo "+ curl --header 'Host: hello.demo.example' http://node-3/"
"$cluster" lab exec node-3 -- curl --silent --show-error --fail --retry 20 --retry-all-errors --retry-max-time 20 \
    --retry-delay 1 --header 'Host: hello.demo.example' http://127.0.0.1/ 2> /dev/null
"$cluster" lb list

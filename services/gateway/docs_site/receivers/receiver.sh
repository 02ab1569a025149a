#!/bin/sh
# Checks a webhook that was kept in two files: WEBHOOK_SECRET=whsec_… sh receiver.sh HEADERS BODY
# HEADERS holds lines of "name: value", BODY the bytes as they came. To try a receiver, send it both again:
#   curl -X POST -H @HEADERS --data-binary @BODY http://127.0.0.1:8000/
set -euf
headers=$1 body=$2

header() {
  tr -d '\r' < "$headers" | sed -n "s/^$1: *//Ip" | head -n 1
}

id=$(header webhook-id)
timestamp=$(header webhook-timestamp)
# Before anything is computed with it: some shells run what they find in a number.
case $timestamp in
  '' | *[!0-9]*)
    echo "not genuine: no whole seconds in webhook-timestamp"
    exit 1
    ;;
esac
age=$(($(date +%s) - timestamp))
if [ "$age" -gt 300 ] || [ "$age" -lt -300 ]; then
  echo "not genuine: $age seconds old"
  exit 1
fi

secret=${WEBHOOK_SECRET:-}
key=$(printf %s "${secret#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
if [ -z "$key" ]; then
  echo "cannot check: WEBHOOK_SECRET is not whsec_ and base64"
  exit 2
fi
expected=$( { printf '%s.%s.' "$id" "$timestamp"; cat "$body"; } |
  openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)
if [ -z "$expected" ]; then
  echo "cannot check: openssl has made no signature"
  exit 2
fi

# There are two signatures while a secret is being replaced; one that fits is enough.
for one in $(header webhook-signature); do
  if [ "$one" = "v1,$expected" ]; then
    echo "genuine $id"
    exit 0
  fi
done
echo "not genuine: no signature fits"
exit 1

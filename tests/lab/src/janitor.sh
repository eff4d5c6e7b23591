# Removes one lab: $1 is its prefix, $2 its directory.
# Runs beside the lab from its first moment and waits for a word on stdin. The owner closing that
# pipe, or ending in any way at all (SIGKILL included), means: remove. "keep" means: leave it.
trap '' INT HUP TERM
read -r word || word=gone
[ "$word" = keep ] && exit 0
for path in /run/netns/"$1"-*; do
    [ -e "$path" ] || continue
    ns=${path##*/}
    # Only what lives in this lab's own namespaces. A killed process needs a moment to go.
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        pids=$(ip netns pids "$ns" 2>/dev/null)
        [ -z "$pids" ] && break
        kill -KILL $pids 2>/dev/null
        sleep 0.05
    done
    ip netns del "$ns"
done
if [ -e "$2/keep-logs" ]; then
    rm -f "$2/owner" "$2/kept"
else
    rm -rf "$2"
fi

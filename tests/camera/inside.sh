# Runs inside of the virtual machine, where vivid makes two cameras beside outputs and metadata nodes. Every check says what it
# is and ends all at the first that fails.
form=$1
small="--engine cpu --size 96 --conf 0.9"
fail() {
  echo "FAILED: $1"
  shift
  for file in "$@"; do
    echo "--- $file"
    tail -n 20 "$file"
  done
  exit 1
}
ok() { echo "ok: $1"; }
lines() { wc -l <"$1"; }
# Waits until a file has more than so many lines; the machine is slow, so patience is long.
grow() {
  for _ in $(seq 600); do
    [ "$(lines "$1")" -gt "$2" ] && return
    sleep 0.2
  done
  fail "no more frames came" "$1" "$3"
}
# Sequence numbers of JSON lines rise.
rising() { sed 's/^{"frame":\([0-9]*\),.*/\1/' "$1" | awk 'NR > 1 && $1 <= last { exit 1 } { last = $1 }'; }

yolo-lat cameras >/tmp/list || fail "cameras" /tmp/list
[ "$(grep -c '^[0-9]' /tmp/list)" = 2 ] || fail "two cameras, and nothing else" /tmp/list
ls /dev/video* >/tmp/nodes
[ "$(lines /tmp/nodes)" -gt 2 ] || fail "the machine has other nodes" /tmp/nodes
ok "two cameras among $(lines /tmp/nodes) nodes"
first=$(awk '/^[0-9]/ { print $2; exit }' /tmp/list)
second=$(awk '/^[0-9]/ { path = $2 } END { print path }' /tmp/list)

yolo-lat cameras --formats >/tmp/formats
grep -q ',yuyv' /tmp/formats || fail "formats are listed" /tmp/formats
ok "formats are listed, of kinds $(sed -n 's/.*@[0-9]*,//p' /tmp/formats | sort -u | tr '\n' ' ')"

frames=200
[ "$form" = short ] && frames=20
yolo-lat live --headless "$first" $small --max-frames $frames -f jsonl >/tmp/frames 2>/tmp/errors ||
  fail "frames" /tmp/frames /tmp/errors
[ "$(lines /tmp/frames)" = $frames ] || fail "as many frames as were asked for" /tmp/errors
rising /tmp/frames || fail "frames come in order" /tmp/frames
# vivid has no MJPEG, which is tried first.
grep -q ',yuyv' /tmp/frames || fail "the next format is tried" /tmp/frames /tmp/errors
ok "$frames frames in order, in the format that there is"
[ "$form" = short ] && exit 0

kinds=$(sed -n 's/.*320x180@[0-9]*,//p' /tmp/formats | sort -u)
for kind in $kinds; do
  timeout 60 yolo-lat live --headless "$first" --camera-format 320x180,$kind $small --max-frames 3 -f jsonl >/tmp/one 2>/tmp/errors ||
    fail "format $kind" /tmp/one /tmp/errors
  grep -q '"width":320,"height":180' /tmp/one || fail "format $kind" /tmp/one
  grep -q ",$kind\"" /tmp/one || fail "format $kind is the one that is used" /tmp/one
  ok "format $kind"
done
[ "$(echo "$kinds" | wc -w)" -ge 2 ] || fail "several kinds of format" /tmp/formats
timeout 60 yolo-lat live --headless "$first" --camera-format 123x45 $small --max-frames 1 >/tmp/one 2>/tmp/errors
grep -q "it offers" /tmp/errors || fail "a format that is not there is refused with a list" /tmp/errors
ok "a format that is not there is refused with a list"

yolo-lat live --headless --camera vivid $small --max-frames 2 >/tmp/one 2>/tmp/errors || fail "a camera by its name" /tmp/errors
ok "a camera by its name"

yolo-lat live --headless "$first" $small --max-frames 20 >/tmp/a 2>/tmp/errors &
yolo-lat live --headless "$second" $small --max-frames 20 >/tmp/b 2>>/tmp/errors || fail "the second camera" /tmp/b /tmp/errors
wait
[ "$(lines /tmp/a)" = 20 ] && [ "$(lines /tmp/b)" = 20 ] || fail "two cameras at once" /tmp/errors
ok "two cameras at once"

yolo-lat live --headless "$first" "$second" $small --max-frames 20 -f jsonl >/tmp/both 2>/tmp/errors || fail "one session" /tmp/errors
[ "$(lines /tmp/both)" = 40 ] || fail "as many frames of each camera" /tmp/both /tmp/errors
[ "$(sed 's/.*"source":"\([^"]*\)".*/\1/' /tmp/both | sort -u | wc -l)" = 2 ] || fail "each names itself" /tmp/both
ok "two cameras in one session name themselves"

yolo-lat detect "$first" $small --stride 2 --max-frames 5 -q -f jsonl >/tmp/five 2>/tmp/errors || fail "detect" /tmp/errors
[ "$(lines /tmp/five)" = 5 ] && grep -q '"time_s":0.0' /tmp/five || fail "five frames of a camera" /tmp/five
ok "detect takes frames of a camera"

yolo-lat live --headless "$first" $small -f jsonl >/tmp/long 2>/tmp/errors &
long=$!
grow /tmp/long 5 /tmp/errors
timeout 10 yolo-lat live --headless "$first" $small --max-frames 1 >/tmp/one 2>/tmp/busy
grep -q "another program" /tmp/busy || fail "a busy camera says so" /tmp/busy
ok "a busy camera says so"

device=$(ls /sys/bus/platform/drivers/vivid | grep '^vivid\.' | head -n 1)
echo "$device" >/sys/bus/platform/drivers/vivid/unbind
for _ in $(seq 100); do
  grep -q "trying again" /tmp/errors && break
  sleep 0.2
done
grep -q "trying again" /tmp/errors || fail "an unplugged camera is noticed" /tmp/errors
before=$(lines /tmp/long)
ok "an unplugged camera is noticed"
echo "$device" >/sys/bus/platform/drivers/vivid/bind
grow /tmp/long "$before" /tmp/errors
ok "frames come again when it is plugged in again"
begin=$(date +%s)
kill -INT $long
wait $long
[ "$?" = 130 ] || fail "an interrupted session ends with 130" /tmp/errors
[ $(($(date +%s) - begin)) -le 5 ] || fail "a session ends at once"
ok "an interrupted session ends at once"

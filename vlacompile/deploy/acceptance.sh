# What a device says of itself, and of a bundle that is timed on it. The part of device.sh before its steps, whose names
# it uses. `attend`: what runs a program so that it ends with the workstation; empty on the board itself.

identify() {
  say arch "$(uname -m)"
  for tree in /proc/device-tree /sys/firmware/devicetree/base; do
    if [ -r "$tree/model" ]; then
      say model "$(tr '\0' ' ' <"$tree/model")"
      say compatible "$(tr '\0' ' ' <"$tree/compatible")"
      break
    fi
  done
  say l4t "$(first_line /etc/nv_tegra_release)"
}

# The number of nvpmodel's mode, and its name where the configuration has it.
power_mode() {
  [ -r /var/lib/nvpmodel/status ] || return 0
  mode=$(sed -n 's/^pmode:0*\([0-9][0-9]*\).*/\1/p' /var/lib/nvpmodel/status | head -n 1)
  [ -n "$mode" ] || return 0
  say mode_id "$mode"
  [ -r /etc/nvpmodel.conf ] || return 0
  name=$(sed -n "s/^< *POWER_MODEL ID=$mode NAME=\([A-Za-z0-9_.+-]*\).*/\1/p" /etc/nvpmodel.conf | head -n 1)
  [ -z "$name" ] || say mode "$name"
}

# KEY FILE: its hash, then its content in base64, as answers.
encoded() {
  say "$1" "$(hash_of "$2")"
  base64 -w 3000 "$2" | while read -r part; do say "$1_part" "$part"; done
}

# VLART_RUN BUNDLE PASSES and further arguments: every stage and replan is timed, with what the sensors say meanwhile.
measure_bundle() {
  program=$1 bundle=$2 passes=$3
  shift 3
  identify
  say kernel "$(uname -r)"
  say date "$(date -u +%Y-%m-%d)"
  power_mode
  place=$(mktemp -d)
  trap 'rm -rf "$place"' EXIT
  {
    for seconds in $(seq 5 5 36000); do
      sleep 5 </dev/null >/dev/null 2>&1
      printf 'measuring, %s s\n' "$seconds"
    done
  } 3<&- 8>&- &
  clock=$!
  timed=0
  $attend "$program" "$bundle" --profile "$place/profile" --fresh --repeat "$passes" "$@" >"$place/said" 2>&1 || timed=$?
  kill "$clock" 2>/dev/null || :
  if [ "$timed" -ne 0 ]; then # before a word is said, which nobody may hear
    said=$(tail -n 20 "$place/said")
    rm -rf "$place"
    printf '%s\n' "$said"
    fail measure "$timed"
  fi
  encoded profile "$place/profile"
  if [ -f "$bundle/engines/lock.bin" ]; then encoded lock "$bundle/engines/lock.bin"; fi
  say measured
}

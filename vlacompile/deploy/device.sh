# Runs on the device, as `sh -c THIS vlacompile STEP ROOT TOKEN ...`, after slots.sh and signed.sh: POSIX sh, coreutils,
# find, grep, sed and flock.
# Answers are lines "vlacompile KEY VALUE"; every other line is the output of a program. Layout of ROOT:
#   lock busy                          the flash that holds the device; a step is running
#   signers                            whose bundles this device takes (ssh-keygen's allowed signers); anybody's without
#   store/SHA256, store/SHA256.part    files by content hash, and partial transfers
#   policies/NAME/slots/{a,b}/         bundle.vlab/ bin/ identity files arguments signed passed
#   policies/NAME/{current,release,history,kept/}
# Files of slots are copies of those in the store (or share their blocks, where the file system can): what damages
# one leaves the others whole. `passed` is written after a self-test and removed before anything else
# in a slot is changed, and `current` points to a slot that has it, or nowhere. `signed` has the time at which the
# present signers' signature was found on a slot; `release` the highest release number that was active.
set -eu
export LC_ALL=C
umask 022
step=$1 root=$2 token=$3
shift 3
case $root in
  /*) ;;
  '~/'*) root=$HOME/${root#'~/'} ;;
  *) root=$HOME/$root ;;
esac

say() { printf 'vlacompile %s\n' "$*"; }
fail() { say failed "$*"; exit 70; }
size() { if [ -f "$1" ]; then stat -c %s "$1"; else echo 0; fi; }
hash_of() { set -- "$(sha256sum <"$1")"; printf '%s\n' "${1%% *}"; }
first_line() { if [ -f "$1" ]; then head -n 1 "$1"; fi; }
# fsync, not syncfs: other programs on the device may have a lot of dirty pages.
on_disk() { sync "$@"; }
copy() { cp -a --reflink=auto "$1" "$2"; }
first_of() { printf '%s\n' "$1" | head -n 1; }
signers=$root/signers

# Watchdog: the workstation sends a byte every few seconds; end of input or a minute of silence ends this.
while_it_lives() { while [ -n "$(timeout 60 head -c 1)" ]; do :; done; }

# Run a program that is killed when the workstation disconnects, at which the input of this script ends.
attended() {
  exec 3<&0
  "$@" </dev/null 3<&- &
  child=$!
  { cat <&3; kill "$child"; } >/dev/null 2>&1 8>&- &
  watcher=$!
  result=0
  wait "$child" || result=$?
  kill "$watcher" 2>/dev/null || :
  return "$result"
}

# Begin a step that makes changes. An earlier step may still be shutting down after its workstation was killed.
begin() {
  exec 8>>"$root/busy"
  flock -w 20 8 || fail busy
  [ "$(first_line "$root/lock")" = "$token" ] || fail lost
}

# Refuses a folder that other users of the device may change.
require_own() {
  case $(stat -L -c %A "$1") in ????????w?) fail open "$1" ;; esac
}

# Resolve an argument that names a file of the slot to a path.
in_slot() {
  case $1 in
    '@slot/'*) printf '%s\n' "$slot/${1#'@slot/'}" ;;
    *) printf '%s\n' "$1" ;;
  esac
}

# Quote a word of a unit's ExecStart, in which %, quotes and backslashes are special; in an argument also $.
word() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g; s/%/&&/g')"; }
argument() { word "$1" | sed 's/[$]/&&/g'; }

# The lock is released when this process ends, in whatever way.
step_hold() {
  for tool in flock sha256sum timeout stat readlink sync find grep sed; do
    command -v "$tool" >/dev/null || fail tools "$tool"
  done
  mkdir -p "$root/store" "$root/policies" || fail root "$root"
  (: >>"$root/busy") && [ -w "$root/store" ] && [ -w "$root/policies" ] || fail root "$root"
  for place in "$root" "$root/store" "$root/policies"; do require_own "$place"; done
  exec 9>>"$root/lock"
  flock -w 2 9 || fail taken "$(first_line "$root/lock")"
  printf '%s\n' "$token" >"$root/lock" || fail full "$root"
  say held
  while_it_lives
}

step_attend() {
  say held
  while_it_lives
}

# ORT: path of ONNX Runtime as given by the caller, or nothing.
step_probe() {
  identify
  say root "$root"
  near=$root
  while [ ! -d "$near" ]; do near=$(dirname "$near"); done
  if [ -f "$signers" ]; then say signers "$(hash_of "$signers")"; fi
  say free_kib "$(df -k --output=avail "$near" | tail -n 1)"
  for library in "$1" "$root"/lib/libonnxruntime.so* /usr/local/lib/libonnxruntime.so* \
    /usr/lib/libonnxruntime.so* /usr/lib/*-linux-gnu/libonnxruntime.so* /opt/onnxruntime*/lib/libonnxruntime.so* \
    "$HOME"/.local/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so* \
    /usr/local/lib/python3*/dist-packages/onnxruntime/capi/libonnxruntime.so*; do
    if [ -f "$library" ]; then say ort "$library"; fi
  done
}

# Input: lines "SHA256 BYTES". Answers with the files that are missing, and the bytes of each that have arrived.
step_missing() {
  begin
  of_policy "$1"
  name=$(current_slot)
  slot=$policy/slots/$name
  if [ -n "$name" ] && [ -d "$slot" ]; then
    identity=damaged
    if [ -f "$slot/passed" ] && [ -z "$(altered "$slot")" ]; then identity=$(first_line "$slot/identity"); fi
    say current "$name $identity"
  fi
  while read -r sha bytes; do
    if [ -f "$root/store/$sha" ] && [ "$(size "$root/store/$sha")" -eq "$bytes" ]; then continue; fi
    rm -f "$root/store/$sha"
    if [ "$(size "$root/store/$sha.part")" -gt "$bytes" ]; then rm -f "$root/store/$sha.part"; fi
    say need "$sha $(size "$root/store/$sha.part")"
  done
}

# POLICY and the hashes of SHA256SUMS and SHA256SUMS.sig, which have arrived: whether the rest is worth sending.
step_permit() {
  begin
  of_policy "$1"
  require_signature "$root/store/$2" "$root/store/$3" "$1" ''
  require_newer
  say permitted "$release"
}

# SHA256 BYTES OFFSET; input: the file from OFFSET on.
step_put() {
  begin
  part=$root/store/$1.part
  have=$(size "$part")
  [ "$have" -eq "$3" ] || fail moved "$have"
  cat >>"$part" || fail write "$(size "$part")"
  have=$(size "$part")
  if [ "$have" -lt "$2" ]; then say part "$have"; return; fi
  got=$(hash_of "$part")
  if [ "$have" -ne "$2" ] || [ "$got" != "$1" ]; then
    rm -f "$part"
    say bad "$got"
    return
  fi
  chmod 444 "$part"
  on_disk "$part" || fail write "$have"
  mv -T "$part" "$root/store/$1"
  on_disk "$root/store" || fail write "$have"
  say stored
}

# POLICY IDENTITY and arguments of vlart-run on this device; input: lines "SHA256 MODE PATH". Fills the slot that is not
# current.
step_link() {
  begin
  of_policy "$1"
  identity=$2
  mkdir -p "$policy/slots" || fail copy "$policy"
  cat >"$policy/files.new" || fail copy "$policy/files.new"
  require_signed_store "$policy/files.new" "$1" || return 0
  shift 2
  name=$(idle_slot)
  slot=$policy/slots/$name
  # Keep the engines of an interrupted build; vlart-build checks each one before reusing it. Where signers are enrolled,
  # only those that were made of what they signed.
  if [ -f "$signers" ] && [ ! -f "$slot/signed" ]; then rm -rf "$policy/engines" "$slot/bundle.vlab/engines"; fi
  if [ -d "$slot/bundle.vlab/engines" ] && [ ! -L "$slot/bundle.vlab/engines" ] && [ ! -f "$slot/passed" ]; then
    rm -rf "$policy/engines"
    mv -T "$slot/bundle.vlab/engines" "$policy/engines"
  fi
  if [ -f "$slot/passed" ]; then
    rm "$slot/passed" || fail copy "$slot"
    on_disk "$slot"
  fi
  rm -rf "$slot" || fail copy "$slot"
  mkdir "$slot" || fail copy "$slot"
  bad=0
  mv -T "$policy/files.new" "$slot/files"
  while read -r sha mode path; do
    mkdir -p "$(dirname "$slot/$path")" || fail copy "$slot/$path"
    copy "$root/store/$sha" "$slot/$path" || fail copy "$slot/$path"
    if [ "$(hash_of "$slot/$path")" != "$sha" ]; then
      rm -f "$root/store/$sha"
      say damaged "$sha"
      bad=1
      continue
    fi
    chmod "$mode" "$slot/$path"
  done <"$slot/files"
  [ "$bad" -eq 0 ] || return 0
  if [ -f "$signers" ]; then date +%Y%m%d%H%M%S >"$slot/signed" || fail copy "$slot/signed"; fi
  printf '%s\n' "$identity" >"$slot/identity" || fail copy "$slot/identity"
  for argument in "$@"; do printf '%s\n' "$argument"; done >"$slot/arguments" || fail copy "$slot/arguments"
  if [ -d "$policy/engines" ]; then
    mv -T "$policy/engines" "$slot/bundle.vlab/engines"
  elif [ -d "$policy/current/bundle.vlab/engines" ] && [ ! -L "$policy/current/bundle.vlab/engines" ] &&
    { [ ! -f "$signers" ] || [ -f "$policy/current/signed" ]; }; then
    copy "$policy/current/bundle.vlab/engines" "$slot/bundle.vlab/engines" || fail copy "$slot/bundle.vlab/engines"
  fi
  say slot "$name"
}

# POLICY SLOT and further arguments of vlart-build.
step_build() {
  begin
  of_policy "$1"
  slot=$policy/slots/$2
  shift 2
  for argument in "$@"; do
    set -- "$@" "$(in_slot "$argument")"
    shift
  done
  if [ -f "$signers" ]; then set -- "$@" --signers "$signers" --keep-engines; fi
  attended "$slot/bin/vlart-build" "$slot/bundle.vlab" "$@" 2>&1 || fail build "$?"
  say built
}

# POLICY SLOT
step_self_test() {
  begin
  of_policy "$1"
  slot=$policy/slots/$2
  [ -f "$slot/identity" ] || fail empty "$2"
  changed=$(altered "$slot")
  [ -z "$changed" ] || fail altered "$changed"
  require_signed "$slot" "$1"
  if said=$(timeout 60 "$slot/bin/vlart-run" --help 2>&1 >/dev/null </dev/null); then :; else fail start "$said"; fi
  set --
  while read -r argument; do set -- "$@" "$(in_slot "$argument")"; done <"$slot/arguments"
  attended "$slot/bin/vlart-run" "$slot/bundle.vlab" --self-test "$@" 2>&1 || fail self_test "$?"
  find "$slot" -exec sync {} + || fail copy "$slot"
  on_disk "$policy/slots" "$policy" "$root/policies"
  date -u +%Y-%m-%dT%H:%M:%SZ >"$slot/passed.new" || fail copy "$slot/passed"
  on_disk "$slot/passed.new"
  mv -T "$slot/passed.new" "$slot/passed"
  say passed
}

# POLICY SLOT PASSES: times its bundle, as acceptance.sh does.
step_measure() {
  begin
  of_policy "$1"
  slot=$policy/slots/$2
  passes=$3
  [ -f "$slot/passed" ] || fail empty "$2"
  set --
  while read -r argument; do set -- "$@" "$(in_slot "$argument")"; done <"$slot/arguments"
  attend=attended
  measure_bundle "$slot/bin/vlart-run" "$slot/bundle.vlab" "$passes" "$@"
}

# PROGRAMS BUNDLE PASSES and arguments of vlart-run: the same on the board itself, without a workstation.
step_on_board() {
  program=$1/vlart-run bundle=$2 passes=$3
  shift 3
  tested=$("$program" "$bundle" --self-test "$@") || fail self_test "$?"
  say tested "$(printf '%s\n' "$tested" | tail -n 1)"
  attend=''
  measure_bundle "$program" "$bundle" "$passes" "$@"
}

# POLICY SLOT WORD KEEP: WORD for the history; the files of the last KEEP bundles stay in the store. All that takes
# space is done before the switch; after it, nothing is reported as a failure.
step_activate() {
  begin
  of_policy "$1"
  [ -f "$policy/slots/$2/passed" ] || fail empty "$2"
  require_signed "$policy/slots/$2" "$1"
  if [ -f "$signers" ] && [ "$3" != rolled-back ]; then
    require_newer
    printf '%s\n' "$release" >"$policy/release.new" || fail full "$policy"
    on_disk "$policy/release.new"
    mv -T "$policy/release.new" "$policy/release"
    on_disk "$policy"
  fi
  on_disk "$policy/slots/$2"
  rm -rf "$policy/current.new" "$policy/history.new"
  {
    if [ -f "$policy/history" ]; then tail -n 1000 "$policy/history" | lines; fi
    printf '%s %s %s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$3" "$2" "$(first_line "$policy/slots/$2/identity")"
  } >"$policy/history.new" || fail full "$policy"
  on_disk "$policy/history.new"
  ln -s "slots/$2" "$policy/current.new" || fail full "$policy"
  # A folder can be no link's place: a copy of the device that followed links, say. It makes room for one.
  if [ -d "$policy/current" ] && [ ! -L "$policy/current" ]; then
    rm -rf "$policy/current.old"
    mv -T "$policy/current" "$policy/current.old" || fail full "$policy"
  fi
  mv -T "$policy/current.new" "$policy/current"
  on_disk "$policy"
  if mv -T "$policy/history.new" "$policy/history" && on_disk "$policy"; then :; fi
  say active "$2"
  if (tidy "$2" "$4") >/dev/null 2>&1; then :; else say untidy "$2"; fi
}

# POLICY, or nothing if there is only one. Answers with the slot to roll back to.
step_other() {
  begin
  name=$1
  if [ -z "$name" ]; then
    name=$(ls "$root/policies")
    [ "$(ls "$root/policies" | wc -l)" -eq 1 ] || fail which "$(ls "$root/policies" | tr '\n' ' ')"
  fi
  of_policy "$name"
  [ -d "$policy" ] || fail policy "$name ($(ls "$root/policies" | tr '\n' ' '))"
  slot=$(idle_slot)
  [ -L "$policy/current" ] && [ -f "$policy/slots/$slot/passed" ] || fail previous "$name"
  say policy "$name"
  say slot "$slot"
}

# SHA256 of the list, and "replace" where it may be another than the one that is enrolled; input: the list. Slots count
# as signed only by the signers that are enrolled.
step_enroll() {
  begin
  require_keygen
  cat >"$signers.new" || fail write "$(size "$signers.new")"
  [ "$(hash_of "$signers.new")" = "$1" ] || fail cut "$signers.new"
  if [ ! -f "$signers" ] || [ "$(hash_of "$signers")" != "$1" ]; then
    if [ -f "$signers" ] && [ "$2" != replace ]; then fail enrolled "$(hash_of "$signers")"; fi
    for slot in "$root"/policies/*/slots/*; do
      if [ -f "$slot/signed" ]; then rm "$slot/signed" && on_disk "$slot"; fi
    done
    chmod 444 "$signers.new"
    on_disk "$signers.new"
    mv -T "$signers.new" "$signers"
    on_disk "$root"
  fi
  rm -f "$signers.new"
  for policy in "$root"/policies/*; do
    [ -L "$policy/current" ] || continue
    if (require_signed "$policy/current" "${policy##*/}") >/dev/null 2>&1; then
      say covered "${policy##*/}"
    else
      say uncovered "${policy##*/}"
    fi
  done
  say enrolled
}

# POLICY: a user unit that repeats the self-test when the device starts; the robot's own unit requires it.
step_unit() {
  begin
  of_policy "$1"
  command -v systemctl >/dev/null || fail systemctl
  slot=$policy/current
  arguments=
  while read -r given; do arguments="$arguments $(argument "$(in_slot "$given")")"; done <"$slot/arguments"
  unit=vlacompile-$1.service
  place=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
  mkdir -p "$place"
  cat >"$place/$unit.new" <<UNIT
[Unit]
Description=vlacompile: the self-test of $1
# A robot's own unit should have: Requires=$unit After=$unit PartOf=$unit

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=$(word "$slot/bin/vlart-run") $(argument "$slot/bundle.vlab") --self-test$arguments

[Install]
WantedBy=default.target
UNIT
  mv -T "$place/$unit.new" "$place/$unit"
  systemctl --user daemon-reload || fail unit "$unit"
  systemctl --user enable "$unit" || fail unit "$unit"
  systemctl --user restart "$unit" || fail unit "$unit"
  say unit "$unit"
  # A user's units start at boot if lingering is enabled, otherwise at the first log-in.
  if loginctl --no-ask-password enable-linger </dev/null >/dev/null 2>&1; then say lingers yes; fi
}

# Nothing, or "whole": read every file of the slots again. Takes no lock and changes nothing.
step_status() {
  for place in "$root"/policies/*; do
    [ -d "$place" ] || continue
    case ${place##*/} in *[!A-Za-z0-9_.+-]*) continue ;; esac # not ours
    status_of "${place##*/}" "$1"
  done
  if [ -f "$root/lock" ] && ! flock -n -s "$root/lock" true; then say flashing "$(first_line "$root/lock")"; fi
}

"step_$step" "$@"

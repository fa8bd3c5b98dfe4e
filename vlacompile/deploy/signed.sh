# Whether a slot of the device is signed, as its own ssh-keygen says (OpenSSH 8.2). The part of device.sh before its
# steps, whose names it uses: `signers` is the list that was enrolled, `policy` a policy's folder; refusing is `fail`.
namespace=vlacompile-bundle

# SUMS SIGNATURE OPTION...: whether one of the signers signed that list of files; sets `who`. ssh-keygen finds the first
# line that has the key, which may be for another purpose: so each is asked for.
signed_by_one() {
  sums=$1 signature=$2 who='' refused='' asked=0
  shift 2
  while IFS= read -r line && [ "$asked" -lt 1000 ]; do
    asked=$((asked + 1))
    found=$(printf '%s\n' "$line" | ssh-keygen -Y find-principals -s "$signature" -f /dev/stdin "$@" 2>/dev/null) ||
      continue
    while IFS= read -r who && [ "$asked" -lt 1000 ]; do
      asked=$((asked + 1))
      if ssh-keygen -Y verify -n "$namespace" -s "$signature" -f "$signers" -I "$who" "$@" <"$sums" >/dev/null 2>&1
      then return 0; fi
      refused=$who
    done <<FOUND
$found
FOUND
    who=$refused
  done <<LINES
$(lines_with_key "$signature")
LINES
  return 1
}

# SIGNATURE: the lines of the list that may have its key, which 14 bytes of other things precede, or have signed it.
lines_with_key() {
  key=$(sed '/^-/d' "$1" | base64 -d 2>/dev/null | tail -c +15 | head -c 48 | base64 -w 0)
  if [ -n "$key" ]; then grep -aiF -e "$key" -e cert-authority "$signers" || :; fi
}

# SUMS SIGNATURE POLICY TIME: refuses a list that is not signed by one of the signers, now or at TIME, if that is given,
# or is of another policy. Sets `release`.
require_signature() {
  require_keygen
  if [ ! -f "$1" ] || [ ! -f "$2" ]; then fail unsigned "$3"; fi
  why=$(ssh-keygen -Y check-novalidate -n "$namespace" -s "$2" <"$1" 2>&1) || fail signature "$(first_of "$why")"
  if signed_by_one "$1" "$2" || { [ -n "$4" ] && signed_by_one "$1" "$2" -O "verify-time=$4"; }; then :; else
    why=$(ssh-keygen -Y find-principals -s "$2" -f "$signers" 2>&1 >/dev/null </dev/null || :)
    if [ -n "$who" ]; then
      why=$(ssh-keygen -Y verify -n "$namespace" -s "$2" -f "$signers" -I "$who" 2>&1 >/dev/null <"$1" || :)
    fi
    case $why in
      *'has expired'* | *'not yet valid'*) fail period "$(first_of "$why")" ;;
      *) fail foreign "$(first_of "$why")" ;;
    esac
  fi
  { read -r format && read -r whose && read -r release; } <"$1" || fail list "$3"
  [ "$format" = '# vlacompile-bundle 1' ] || fail list "$3"
  [ "$whose" = "# policy $3" ] || fail another "${whose#'# policy '}"
  release=${release#'# release '}
  case $release in '' | *[!0-9]* | ????????????????*) fail list "$3" ;; esac
}

require_keygen() {
  case $(ssh-keygen -Y find-principals 2>&1 </dev/null || :) in
    *'missing signature file'*) ;;
    *) fail keygen ;;
  esac
}

# SUMS FILES: refuses a slot's list of files that has others of its bundle than what was signed. That the files are
# those of the list is step_link's affair, and that of `altered`.
require_bound() {
  wanted=$(tail -n +4 "$1" | sort)
  listed=$(sed -n 's|^\([0-9a-f]*\) [0-7]* bundle\.vlab/|\1  |p' "$2" | grep -v '  SHA256SUMS\(\.sig\)\{0,1\}$' | sort)
  if [ -n "$wanted" ] && [ "$wanted" = "$listed" ]; then return 0; fi
  other=$(printf '%s\n' "$wanted" "$listed" | sort | uniq -u | head -n 1)
  other=${other#*  }
  fail unbound "${other:-a file that is listed twice}"
}

# SLOT POLICY: where signers are enrolled, refuses a slot whose bundle they did not sign as it is.
require_signed() {
  [ -f "$signers" ] || return 0
  list=$1/bundle.vlab/SHA256SUMS
  require_signature "$list" "$list.sig" "$2" "$(first_line "$1/signed")"
  require_bound "$list" "$1/files"
}

# FILES POLICY: the same before a slot is filled, of files in the store. Says those that are damaged there, and is then
# false.
require_signed_store() {
  [ -f "$signers" ] || return 0
  list=none
  for part in '\.sig' ''; do
    sha=$(sed -n "s|^\([0-9a-f]*\) [0-7]* bundle\.vlab/SHA256SUMS$part\$|\1|p" "$1" | tail -n 1)
    if [ -n "$sha" ] && [ "$(hash_of "$root/store/$sha")" != "$sha" ]; then
      rm -f "$root/store/$sha"
      say damaged "$sha"
      return 1
    fi
    beside=$list list=$root/store/${sha:-none}
  done
  require_signature "$list" "$beside" "$2" ''
  require_bound "$list" "$1"
  require_newer
}

# Refuses `release` where a later one was active.
require_newer() {
  [ -e "$policy/release" ] || return 0
  seen=$(first_line "$policy/release")
  case $seen in '' | *[!0-9]*) fail counter "$policy/release" ;; esac
  [ "$release" -ge "$seen" ] || fail older "$release, after $seen"
}

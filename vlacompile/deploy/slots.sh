# What the slots of a policy hold, and whether it is what they were filled with. Like signed.sh a part of device.sh,
# before its steps: `policy` is a policy's folder.

of_policy() { policy=$root/policies/$1; }

# The slot that `current` points to: a, b, or nothing. What else may be there is none of ours.
current_slot() {
  case $(readlink "$policy/current" || :) in
    slots/a) echo a ;;
    slots/b) echo b ;;
  esac
}

idle_slot() { if [ "$(current_slot)" = a ]; then echo b; else echo a; fi; }

# SLOT: the hash of the list of its files and of its arguments.
identity_of() {
  set -- "$(printf '%s' "$(sort "$1/files" && cat "$1/arguments")" | sha256sum)"
  printf '%s\n' "${1%% *}"
}

# SLOT: the first thing in it that is not as it was filled, as far as names, kinds and modes say; nothing is read but
# lists. Engines are made in the slot.
misplaced() {
  if [ ! -d "$1" ] || [ -L "$1" ]; then echo 'its folder'; return; fi
  for list in identity files arguments; do
    if [ ! -f "$1/$list" ] || [ -L "$1/$list" ]; then printf '%s\n' "$list"; return; fi
  done
  if [ "$(identity_of "$1")" != "$(first_line "$1/identity")" ]; then echo 'its list of files'; return; fi
  {
    cut -d ' ' -f 3- "$1/files"
    printf '%s\n' identity files arguments
    (cd "$1" && find . ! -type d ! -path './bundle.vlab/engines/*' ! -path ./signed ! -path ./passed ! -path \
      ./passed.new) | cut -c 3-
  } | sort | uniq -u | head -n 1
  while read -r sha mode path; do
    if [ -L "$1/$path" ] || [ "$(stat -c %a "$1/$path" 2>/dev/null)" != "$mode" ]; then
      printf '%s\n' "$path"
      return
    fi
  done <"$1/files"
}

# SLOT: the same, after reading every file.
altered() {
  found=$(first_of "$(misplaced "$1")")
  if [ -n "$found" ]; then printf '%s\n' "$found"; return; fi
  while read -r sha mode path; do
    if [ "$(hash_of "$1/$path")" != "$sha" ]; then
      printf '%s\n' "$path"
      return
    fi
  done <"$1/files"
}

# Whole lines of a history alone: a cut of power may have left part of one, or bytes that are no text.
lines() { tr -d '\000' | grep -aE '^[0-9TZ:-]+ [a-z-]+ [ab] [0-9a-f]+$' || :; }

# N: the identities of the last bundles that were active, by the history: the clock may have been set back.
last_bundles() {
  left=$1 recent=
  for one in $(first_line "$policy/current/identity") $(lines <"$policy/history" | tac | cut -d ' ' -f 4); do
    case "$recent " in *" $one "*) continue ;; esac
    [ "$left" -gt 0 ] || break
    recent="$recent $one" left=$((left - 1))
  done
  printf '%s \n' "$recent"
}

# SLOT KEEP: deletes from the store files that no slot and none of the last bundles names, partial transfers that were
# not resumed for a week, and what interrupted steps left. Where the list cannot be written nothing is deleted by it.
tidy() {
  mkdir -p "$policy/kept" || return
  cp "$policy/slots/$1/files" "$policy/kept/$(first_line "$policy/slots/$1/identity")" || return
  recent=$(last_bundles "$2")
  for list in "$policy"/kept/*; do
    case $recent in *" ${list##*/} "*) ;; *) rm -f "$list" ;; esac
  done
  rm -rf "$policy/current.old" "$root"/*.new "$policy"/*.new
  cat "$root"/policies/*/kept/* "$root"/policies/*/slots/*/files 2>/dev/null | cut -d ' ' -f 1 | sort -u \
    >"$root/used" || return
  touch -d '7 days ago' "$root/week" || return
  for file in "$root"/store/*.part; do
    if [ "$file" -ot "$root/week" ] || [ "$file" -nt "$root/used" ]; then rm -f "$file"; fi
  done
  ls "$root/store" | sort | comm -23 - "$root/used" | while read -r sha; do
    if [ "${sha%.part}" = "$sha" ]; then rm -f "$root/store/$sha"; fi
  done
  rm -f "$root/used" "$root/week"
}

# NAME DEPTH: what a status says of a policy, whose files are read again if DEPTH is "whole".
status_of() {
  of_policy "$1"
  current=$(current_slot)
  say policy "$1 $current"
  if [ -z "$current" ] && { [ -e "$policy/current" ] || [ -L "$policy/current" ]; }; then say damaged "$1 current"; fi
  for slot in a b; do
    [ -d "$policy/slots/$slot" ] || [ "$slot" = "$current" ] || continue
    passed=$(first_line "$policy/slots/$slot/passed")
    case $passed in *[!0-9TZ:-]*) passed= ;; esac
    identity=$(first_line "$policy/slots/$slot/identity")
    case $identity in *[!0-9a-f]*) identity= ;; esac
    [ "${#identity}" -eq 64 ] || identity=
    say slot "$1 $slot $identity $passed"
    [ -f "$policy/slots/$slot/passed" ] || [ "$slot" = "$current" ] || continue
    if [ "$2" = whole ]; then found=$(altered "$policy/slots/$slot"); else found=$(misplaced "$policy/slots/$slot"); fi
    if [ -z "$found" ] && [ ! -f "$policy/slots/$slot/passed" ]; then found='its self-test'; fi
    # Not of one that a flash has just begun to fill.
    if [ -n "$found" ] && { [ -f "$policy/slots/$slot/passed" ] || [ "$slot" = "$(current_slot)" ]; }; then
      say damaged "$1 $slot $(first_of "$found")"
    fi
  done
  if [ -e "$policy/release" ]; then
    release=$(first_line "$policy/release")
    case $release in
      '' | *[!0-9]* | ????????????????*) say damaged "$1 release" ;;
      *) say release "$1 $release" ;;
    esac
  fi
  if [ -f "$policy/history" ]; then
    tail -n 20 "$policy/history" | lines | tail -n 5 | while read -r line; do say history "$1 $line"; done
  fi
  if command -v systemctl >/dev/null; then
    say unit "$1 $(systemctl --user is-active "vlacompile-$1.service" 2>/dev/null || :)"
  fi
}

#!/usr/bin/env bash
# The documentation builds, the links in it and in the pages lead somewhere, and the published
# crates can be packaged without a warning.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

say "rustdoc"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --all-features \
    -p umcg -p umcg-sys -p umcg-macros -p umcg-managed-calls

say "links in the pages"
# pages: all pages of the checkout that git does not ignore.
pages() {
    git ls-files --cached --others --exclude-standard '*.md' | while IFS= read -r page; do
        if [[ -f $page ]]; then printf '%s\n' "$page"; fi
    done
}

# links PAGE: the targets of its links, one a line. Code is left out.
links() {
    awk '/^ *```/ { code = !code; next } !code { gsub(/`[^`]*`/, ""); print }' "$1" |
        grep -oE '\]\([^) ]+' | sed 's/^](//' || true
}

# anchors PAGE: the anchors of its headings, as GitHub makes them.
anchors() {
    awk '/^ *```/ { code = !code; next } !code && /^#+ /' "$1" |
        sed -E 's/^#+ +//; s/[^[:alnum:] _-]//g; s/ /-/g' | tr '[:upper:]' '[:lower:]'
}

broken=0
count=0
while IFS= read -r page; do
    while IFS= read -r link; do
        case $link in
        http://* | https://* | mailto:*) continue ;;
        esac
        count=$((count + 1))
        path=${link%%#*}
        file=$page
        [[ -z $path ]] || file=$(dirname -- "$page")/$path
        if [[ ! -e $file || $path == /* ]]; then
            echo "$page: there is no $link"
            broken=$((broken + 1))
        elif [[ $link == *'#'* ]] && ! anchors "$file" | grep -qxF -- "${link#*#}"; then
            echo "$page: $link has no such heading"
            broken=$((broken + 1))
        fi
    done < <(links "$page")
done < <(pages)
echo "$count links, $broken of them broken"
[[ $count -gt 0 && $broken == 0 ]]

say "packages"
# Together, since they depend on each other and are on no registry yet.
if ! output=$(cargo package --no-verify --allow-dirty -p umcg-sys -p umcg-macros -p umcg-managed-calls -p umcg 2>&1) ||
    grep -q '^warning' <<<"$output"; then
    echo "$output"
    exit 1
fi
grep Packaged <<<"$output"

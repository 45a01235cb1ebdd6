# help.awk - reads what print_help (programs/common/options.c) and print_usage (programs/qwen3/main.c) write: calls
# usage(synopsis), text(line), item(short, long, argument) and more(text) for the help of the last item.
/^Usage: / { usage(substr($0, 8)); next }
/^Commands:$/ { in_commands = 1; next }
in_commands && /^  [a-z]/ { item("", $1, ""); sub(/^ *[^ ]+ */, ""); more($0); next }
/^  -/ {
    # Help begins in column 33, if what is before it is shorter; else on the next line.
    beside = length($0) > 32 && substr($0, 32, 1) == " "
    n = split(beside ? substr($0, 1, 32) : $0, part, " ")
    i = 1
    short = ""
    if (part[1] ~ /^-[^-],$/) {
        short = substr(part[1], 1, 2)
        i = 2
    }
    item(short, part[i], i < n ? part[i + 1] : "")
    if (beside)
        more(substr($0, 33))
    in_options = 1
    next
}
in_options && /^ / { sub(/^ +/, ""); more($0); next }
/./ { text($0) }

# man.awk - a man page of --help, read by help.awk. Variables: name (qwen3-run), version, others (names of all pages).
function escaped(s)
{
    gsub(/\\/, "\\e", s)
    gsub(/-/, "\\-", s)
    return s
}

# A line of text may not begin as a request would.
function line(s)
{
    s = escaped(s)
    print (s ~ /^[.']/ ? "\\&" : "") s
}

function usage(synopsis)
{
    sub(/^[^ ]+( [a-z]+)?/, "\\fB&\\fR", synopsis)
    called = synopsis
}

function begin(first)
{
    command = name
    sub(/-/, " ", command)
    print ".TH " toupper(escaped(name)) " 1 \"\" \"qwen3 " version "\" \"User Commands\""
    print ".SH NAME"
    printf "%s \\- ", escaped(name)
    line(first)
    print ".SH SYNOPSIS\n" called
    print ".SH DESCRIPTION"
    described = 1
}

function text(s,    first)
{
    if (!described) {
        first = s
        sub(/\. .*/, "", first)
        sub(/\.$/, "", first)
        begin(first)
    }
    if (listed)
        closing = closing s "\n"
    else
        line(s)
}

function item(short, long, argument)
{
    if (!described) {
        begin("Run, pack and examine Qwen3 models")
        print "A program of commands, each of which has a page of its own."
    }
    if (!listed++)
        print ".SH " (long ~ /^-/ ? "OPTIONS" : "COMMANDS")
    print ".TP"
    print (short ? "\\fB" escaped(short) "\\fR, " : "") "\\fB" escaped(long) "\\fR" \
          (argument ? " \\fI" escaped(argument) "\\fR" : "")
}

function more(s)
{
    line(s)
}

END {
    if (closing) {
        print ".SH NOTES"
        printf "%s", escaped(closing)
    }
    print ".SH EXIT STATUS"
    print ".TP\n0\nSuccess."
    if (name !~ /^qwen3/)
        print ".TP\n1\nA result is outside its tolerance."
    print ".TP\n2\nAn error, which standard error names."
    print ".SH SEE ALSO"
    n = split(others, other, " ")
    separator = ""
    for (i = 1; i <= n; i++)
        if (other[i] != name) {
            printf "%s.BR %s (1)", separator, escaped(other[i])
            separator = " ,\n"
        }
    print ""
}

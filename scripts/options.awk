# options.awk - the options and commands of --help, read by help.awk, as lines of: command, short, long, argument, help,
# with tabs between. Variable: command ("qwen3 run").
function flush()
{
    if (long)
        print command "\t" short_name "\t" long "\t" value "\t" help
    long = ""
}

function usage(synopsis) { }
function text(s) { }

function item(short, name, argument)
{
    flush()
    short_name = short
    long = name
    value = argument
    help = ""
}

function more(s) { help = help (help ? " " : "") s }

END { flush() }

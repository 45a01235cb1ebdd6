# completion.awk - completion of all programs, from the lines of options.awk. Variable: shell (bash, zsh).

# What completes a value: words, "files", "directories", or "" (nothing can).
function completes(value)
{
    if (value ~ /^[a-z0-9_+]+(\|[a-z0-9_+]+)+$/) {
        gsub(/\|/, " ", value)
        return value
    }
    return value ~ /FILE/ ? "files" : value ~ /DIR/ ? "directories" : ""
}

# In single quotes of a shell.
function quoted(s)
{
    gsub(/'/, "'\\''", s)
    return "'" s "'"
}

$3 !~ /^-/ {
    subcommands[++n_subcommands] = $3
    summary[$3] = $5
    next
}

!($1 in n_options) { commands[++n_commands] = $1 }

{
    i = ++n_options[$1]
    short[$1, i] = $2
    long[$1, i] = $3
    value[$1, i] = $4
    help[$1, i] = $5
}

function bash_options(    c, i, command)
{
    print "# The options of a command."
    print "_qwen3_options()\n{\n    case $1 in"
    for (c = 1; c <= n_commands; c++) {
        command = commands[c]
        printf "    '%s') echo '", command
        for (i = 1; i <= n_options[command]; i++)
            printf "%s%s%s", (i > 1 ? " " : ""), (short[command, i] ? short[command, i] " " : ""), long[command, i]
        print "' ;;"
    }
    print "    esac\n}\n"
}

function bash_values(    c, i, command)
{
    print "# What completes the value of an option of a command; fails where the option takes none."
    print "_qwen3_values()\n{\n    case $1:$2 in"
    for (c = 1; c <= n_commands; c++) {
        command = commands[c]
        for (i = 1; i <= n_options[command]; i++)
            if (value[command, i])
                printf "    %s'%s:%s') echo '%s' ;;\n", \
                       (short[command, i] ? "'" command ":" short[command, i] "' | " : ""), command, long[command, i], \
                       completes(value[command, i])
    }
    print "    *) return 1 ;;\n    esac\n}\n"
}

function bash_main(    i, names)
{
    for (i = 1; i <= n_subcommands; i++)
        names = names subcommands[i] " "
    print "_qwen3()\n{"
    print "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[0]##*/} values"
    print "    COMPREPLY=()"
    print "    if [[ $command == qwen3 ]]; then"
    print "        if ((COMP_CWORD == 1)) || [[ ${COMP_WORDS[1]} == help ]]; then"
    print "            ((COMP_CWORD > 2)) || COMPREPLY=($(compgen -W '" names "help --help --version' -- \"$word\"))"
    print "            return"
    print "        fi"
    print "        command+=\" ${COMP_WORDS[1]}\""
    print "    fi"
    print "    if [[ $word == '=' ]]; then # --option=value is three words"
    print "        word="
    print "    elif [[ $before == '=' ]]; then"
    print "        before=${COMP_WORDS[COMP_CWORD - 2]}"
    print "    fi"
    print "    if values=$(_qwen3_values \"$command\" \"$before\"); then"
    print "        case $values in"
    print "        files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- \"$word\") ;;"
    print "        directories) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- \"$word\") ;;"
    print "        *) COMPREPLY=($(compgen -W \"$values\" -- \"$word\")) ;;"
    print "        esac"
    print "    elif [[ $word == -* ]]; then"
    print "        COMPREPLY=($(compgen -W \"$(_qwen3_options \"$command\")\" -- \"$word\"))"
    print "    fi"
    print "}"
    print "complete -F _qwen3 qwen3 benchmark_qwen3 test_parallel_strategies"
}

# "(-m --model)"{-m,--model=}"[help]:DIR:_directories"; "=": the value may follow after "=", too
function zsh_option(command, i,    name, rest, action, repeats, long_form)
{
    long_form = long[command, i] (value[command, i] ? "=" : "")
    rest = help[command, i]
    gsub(/[\[\]\\]/, "\\\\&", rest)
    rest = "[" rest "]"
    if (value[command, i]) {
        action = completes(value[command, i])
        action = action == "files" ? "_files" : action == "directories" ? "_directories" : action ? "(" action ")" : " "
        name = value[command, i]
        gsub(/:/, "\\:", name)
        rest = rest ":" name ":" action
    }
    repeats = help[command, i] ~ /several times/
    if (!short[command, i])
        return quoted((repeats ? "*" : "") long_form rest)
    return quoted(repeats ? "*" : "(" short[command, i] " " long[command, i] ")") \
           "{" short[command, i] "," long_form "}" quoted(rest)
}

function zsh_main(    c, i, command)
{
    print "_qwen3()\n{"
    print "    local command=${words[1]:t}"
    print "    local -a commands"
    print "    if [[ $command == qwen3 ]]; then"
    print "        commands=("
    for (i = 1; i <= n_subcommands; i++)
        print "            " quoted(subcommands[i] ":" summary[subcommands[i]])
    print "            'help:Show the options of a command'"
    print "        )"
    print "        if (( CURRENT == 2 )) || [[ ${words[2]} == help ]]; then"
    print "            _describe command commands"
    print "            return"
    print "        fi"
    print "        command+=\" ${words[2]}\""
    print "        shift words"
    print "        (( CURRENT-- ))"
    print "    fi"
    print "    case $command in"
    for (c = 1; c <= n_commands; c++) {
        command = commands[c]
        print "    " quoted(command) ")\n        _arguments -s \\"
        for (i = 1; i <= n_options[command]; i++)
            print "            " zsh_option(command, i) (i < n_options[command] ? " \\" : "")
        print "        ;;"
    }
    print "    esac\n}\n\n_qwen3 \"$@\""
}

END {
    if (shell == "zsh")
        print "#compdef qwen3 benchmark_qwen3 test_parallel_strategies"
    print "# Made by scripts/make_pages.sh of what the programs print for --help.\n"
    if (shell == "bash") {
        bash_options()
        bash_values()
        bash_main()
    } else {
        zsh_main()
    }
}

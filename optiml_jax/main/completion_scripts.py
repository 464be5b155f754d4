"""Completion scripts of the shells, as text.

Flags are offered as `--flag=` and their values after it, the way the examples are written; a value
after a blank is completed as well. bash cuts words at `=`, zsh and fish do not: hence the care at
the head of the bash function.
"""

import re
import shlex
from collections.abc import Mapping, Sequence

from optiml_jax.main.completion import Flag, Words
from optiml_jax.main.flags import GIN_PREFIX

HEAD = "# Completion of optiml for {shell}; made by `optiml completion {shell}`.\n"

_BASH = """\
_optiml() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" before="" flag="" stem="" values="" paths=""
    local command="${{COMP_WORDS[1]}}"
    if ((COMP_CWORD > 1)); then before="${{COMP_WORDS[COMP_CWORD - 1]}}"; fi
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W {commands} -- "$cur"))
        return
    fi
    # "=" is a word of its own unless it was taken out of COMP_WORDBREAKS.
    if [[ $cur == "=" ]]; then
        flag="$before" cur=""
    elif [[ $before == "=" ]]; then
        flag="${{COMP_WORDS[COMP_CWORD - 2]}}"
    elif [[ $cur == --*=* ]]; then
        flag="${{cur%%=*}}" stem="${{cur%%=*}}=" cur="${{cur#*=}}"
    elif [[ $before == --* && $cur != -* ]]; then
        flag="$before"
    fi
    case "$command $flag" in
{values}
    *) flag="" ;;
    esac
    if [[ -z $flag ]]; then
        case "$command" in
{flags}
        esac
    fi
    if [[ $cur == --* || -n $values ]]; then
        COMPREPLY=($(compgen -P "$stem" -W "$values" -- "$cur"))
    fi
    if [[ -n $paths ]]; then
        compopt -o filenames 2>/dev/null
        local IFS=$'\n'
        COMPREPLY+=($(compgen -P "$stem" -f -- "$cur"))
    fi
    if [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *[=.] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}}
complete -o default -F _optiml optiml
"""


def bash(words: Mapping[str, Words]) -> str:
    """The script of bash, 3.2 and later."""
    values, flags = [], []
    for name, command in words.items():
        for flag in command.flags:
            if flag.takes_value and not flag.name.startswith(GIN_PREFIX):
                paths = " paths=1" if flag.is_path else ""
                pattern = shlex.quote(f"{name} {flag.name}")
                values.append(f"    {pattern}) values={_list(flag.values)}{paths} ;;")
        offered = [one.name + "=" * one.takes_value for one in command.flags]
        if any(one.name.startswith("--gin.") for one in command.flags):
            # Dozens of macros would hide the flags: they are offered after "--gin." alone.
            macros = [one for one in offered if one.startswith("--gin.")]
            others = [one for one in offered if not one.startswith("--gin.")]
            flags.append(
                f"        {name}) values={_list([*others, '--gin.'])}\n"
                f"            if [[ $cur == --gin.* ]]; then values={_list(macros)}; fi ;;"
            )
        else:
            flags.append(f"        {name}) values={_list([*offered, *command.values])} ;;")
    return HEAD.format(shell="bash") + _BASH.format(
        commands=_list(words), values="\n".join(values), flags="\n".join(flags)
    )


def zsh(words: Mapping[str, Words]) -> str:
    """The script of zsh, for a folder of `$fpath` or for `eval` after compinit."""
    commands = [f"        {shlex.quote(f'{n}:{w.summary}')}" for n, w in words.items()]
    cases = []
    for name, command in words.items():
        specs = [_zsh_flag(flag) for flag in command.flags]
        if command.values:
            specs.append(shlex.quote(f"1:argument:({' '.join(command.values)})"))
        lines = " \\\n".join(f"            {spec}" for spec in specs)
        cases.append(f"        {name})\n            _arguments \\\n{lines}\n            ;;")
    return "\n".join(
        [
            "#compdef optiml",
            HEAD.format(shell="zsh").rstrip(),
            "_optiml() {",
            "    local -a commands",
            "    commands=(",
            *commands,
            "    )",
            "    local curcontext=$curcontext state line",
            "    _arguments -C '1:command:->command' '*::argument:->argument'",
            "    case $state in",
            "    command) _describe command commands ;;",
            "    argument)",
            "        case $line[1] in",
            *cases,
            "        esac",
            "        ;;",
            "    esac",
            "}",
            # Loaded from $fpath the file is the function's body; from `eval` it only defines it.
            'if [ "$funcstack[1]" = "_optiml" ]',
            'then _optiml "$@"',
            "else compdef _optiml optiml",
            "fi",
            "",
        ]
    )


def fish(words: Mapping[str, Words]) -> str:
    """The script of fish."""
    lines = [HEAD.format(shell="fish").rstrip(), "complete -c optiml -f"]
    first = "'not __fish_seen_subcommand_from " + " ".join(words) + "'"
    for name, command in words.items():
        told = _fish_quote(command.summary)
        lines.append(f"complete -c optiml -n {first} -a {name} -d {told}")
    for name, command in words.items():
        seen = f"-n '__fish_seen_subcommand_from {name}'"
        if command.values:
            lines.append(f"complete -c optiml {seen} -a {_list(command.values)}")
        for flag in command.flags:
            parts = ["complete -c optiml", seen, f"-l {shlex.quote(flag.name.lstrip('-'))}"]
            if flag.takes_value:
                parts.append("-rF" if flag.is_path else "-x")
            if flag.values:
                parts.append(f"-a {_list(flag.values)}")
            if flag.summary:
                parts.append(f"-d {_fish_quote(flag.summary)}")
            lines.append(" ".join(parts))
    return "\n".join(lines) + "\n"


def _zsh_flag(flag: Flag) -> str:
    """`'*--flag=[help]:value:action'`; the star lets a flag be given more than once."""
    told = re.sub(r"([\[\]:\\])", r"\\\1", flag.summary)
    spec = f"*{flag.name}" + "=" * flag.takes_value + (f"[{told}]" if told else "")
    if flag.takes_value:
        actions = [f"({' '.join(flag.values)})"] if flag.values else []
        actions += ["_files"] if flag.is_path else []
        action = actions[0] if actions else " "
        if len(actions) == 2:
            action = f"{{compadd -- {' '.join(flag.values)}; _files}}"
        spec += f":value:{action}"
    return shlex.quote(spec)


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _list(values: Sequence[str] | Mapping[str, Words]) -> str:
    return shlex.quote(" ".join(values))

"""The command line: words in, one clear sentence or a promise of JSON out. Results on stdout, everything else on stderr.

Longer than other modules, because all commands with their words and options are in one place.
"""

from __future__ import annotations

import io
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated

import typer

from exlab_watch_agent import __version__
from exlab_watch_agent.app import offline
from exlab_watch_agent.app.pace import PACE, Pace
from exlab_watch_agent.app.site import Site, default_config_path, operator_here
from exlab_watch_agent.cli import (
    binding,
    checking,
    demo,
    drawing,
    following,
    needing,
    overriding,
    resolving,
    running,
    showing,
    top,
    work,
)
from exlab_watch_agent.cli.audit_commands import audit_app
from exlab_watch_agent.cli.auditing import past_moment_of
from exlab_watch_agent.cli.options import RUN_HELP, Config, Json, Quiet, Run, StateDir, Words, given_path
from exlab_watch_agent.cli.saying import (
    NobodyReadsError,
    finish,
    let_go,
    prepare,
    say,
    say_aside,
    say_csv,
    say_json,
    say_lines_aside,
)
from exlab_watch_agent.core.commands import VerifyNow
from exlab_watch_agent.core.problem import Severity
from exlab_watch_agent.core.text import reason
from exlab_watch_agent.diagram.overlay import NOTHING
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode
from exlab_watch_agent.report.choice import Choice, csv_rows
from exlab_watch_agent.report.problems import Wanted
from exlab_watch_agent.statechart import RunState

STATES = ", ".join(RunState)
BEHIND_THE_COMMAND = ("--config", "--state-dir", "--json", "--all", "--quiet", "-q")
"""What is often typed before the command."""
OF_THE_LIBRARY = "Value error, "
"""What the library of the command line puts before its own sentence."""
RULES = ", ".join(overriding.HARD)

app = typer.Typer(
    name="exlab-watch-agent",
    help="Watches instrument run folders, pushes each run to the NAS and proves with SHA-256 that every byte arrived.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
override_app = typer.Typer(
    help="Let a run through the gate, or take that back. The same as editing creation.json, checked.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(override_app, name="override")
app.add_typer(audit_app, name="audit")


def main(pace: Pace = PACE) -> None:
    """Run one command and end with its exit code; no error reaches the user as a traceback.

    `pace`: of the agent that `run` starts.
    """
    prepare()
    try:
        code = app(prog_name="exlab-watch-agent", standalone_mode=False, obj=pace)
        finish()
        if code == ExitCode.INTERRUPTED:  # what the library makes of Ctrl-C; who says more of it ends by itself
            code = _interrupted()
    except typer.Exit as error:
        code = error.exit_code
    except typer.Abort:
        code = ExitCode.FAILED
    except KeyboardInterrupt:
        code = _interrupted()
    except ConfigError as error:
        say_lines_aside(str(error))  # All mistakes of a config, a line each.
        code = ExitCode.USAGE
    except AgentError as error:
        say_aside(str(error))
        code = ExitCode.FAILED
    except (NobodyReadsError, BrokenPipeError):
        let_go()
        code = ExitCode.FINE
    except Exception as error:  # noqa: BLE001 - the last border before the user
        code = _unexpected(error)
    sys.exit(int(code or 0))


def _interrupted() -> int:
    say_aside("Stopped.")
    return ExitCode.INTERRUPTED


def _unexpected(error: Exception) -> int:
    show = getattr(error, "show", None)
    if show is not None:  # a usage error of the command line library: it knows how to say itself
        said = io.StringIO()
        show(said)
        say_lines_aside(said.getvalue().rstrip("\n").replace(OF_THE_LIBRARY, ""))
        if getattr(error, "option_name", "") in BEHIND_THE_COMMAND:
            say_aside("Options of a command stand behind it: exlab-watch-agent status --config FILE")
        return ExitCode.USAGE
    if isinstance(error, OSError):
        say_aside(f"{reason(error)}: {error.filename or 'the system'}")
        return ExitCode.FAILED
    with tempfile.NamedTemporaryFile("w", prefix="exlab-watch-agent-", suffix=".txt", delete=False) as report:
        report.write("".join(traceback.format_exception(error)))
    say_aside(
        f"A defect of exlab-watch-agent stopped the command ({type(error).__name__}); no data were touched by that. "
        f"Please report it with the file {report.name}."
    )
    return ExitCode.FAILED


def _version(value: bool) -> None:
    if value:
        say(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


@app.command("demo")
def demo_command(
    context: typer.Context,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep", metavar="DIR", parser=given_path, help="Build it in this new folder, and leave it there."
        ),
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Build a sample instrument and a NAS folder, live through several runs, and tell the story."""
    typed = {"config": config, "state_dir": state_dir}
    if any(value is not None and _is_typed(context, name) for name, value in typed.items()):
        raise ConfigError("demo brings its own config and state folder: leave out --config and --state-dir.")
    return demo.tell(keep)


def _is_typed(context: typer.Context, name: str) -> bool:
    """Return whether a parameter was given by this command's words, and not by a variable."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command()
def init(
    wizards: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="CONFIG",
            parser=given_path,
            help="ExLab-Wizard's config.yaml, which is then read with it as it is.",
        ),
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Write a commented config file, with --from one beside ExLab-Wizard's. An existing file is never overwritten."""
    return checking.init(config or default_config_path(), wizards, state_dir)


@app.command()
def check(config: Config = None, state_dir: StateDir = None) -> int:
    """Test config, folders and destinations, each destination with a probe file of its own."""
    return checking.check(Site(config, state_dir))


@app.command("bind")
def bind_command(
    equipment: Annotated[
        list[str] | None, typer.Argument(metavar="EQUIPMENT...", help="Equipment whose destination is the right one.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every equipment of the config.")] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Accept a root that takes the place of the bound one; all is proven or pushed anew."
        ),
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="With --replace: why; goes into the audit trail.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Answer the question with yes.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Say once that a destination is the right one, where nothing shows that it is a place other than this PC.

    With --replace, accept another root than the one that was bound, such as a NAS that was replaced.
    """
    site, named = Site(config, state_dir), equipment or ()
    if replace:
        return binding.replace(site, named, is_all=everything, is_yes=yes, reason=reason)
    if reason:
        raise ConfigError("--reason goes with --replace.")
    return binding.bind(site, named, is_all=everything, is_yes=yes)


@app.command()
def run(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Bring all runs to rest, then end.")] = False,
    quiet: Quiet = False,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Run the agent in the foreground until Ctrl-C or SIGTERM."""
    return running.run_agent(Site(config, state_dir), is_once=once, is_quiet=quiet, pace=context.obj)


@app.command()
def reload(config: Config = None, state_dir: StateDir = None) -> int:
    """Have the running agent take in the config as it is now, and say what that changes. With mistakes the old one stays."""
    return running.reload(Site(config, state_dir))


@app.command()
def scan(
    accept_root: Annotated[
        str | None,
        typer.Option(
            "--accept-root",
            metavar="EQUIPMENT",
            help="Accept what is at this equipment's root now, although it is empty or on another volume than before.",
        ),
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Look through all run folders now. Without a running agent nothing is pushed."""
    return work.scan(Site(config, state_dir), accept_root)


@app.command()
def status(
    words: Words = None,
    states: Annotated[
        list[RunState] | None,
        typer.Option("--state", metavar="S", help=f"In this state; may be given again: {STATES}."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="T",
            help="Whose state changed since 2026-04-18 (on this PC's clock), 2026-04-18T09:14:22Z, or 30d, 12h ago.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many, those that changed last.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also the runs that are at their goal.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the runs as CSV.")] = False,
    as_json: Json = False,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Say in one sentence how it is, what each instrument does, and which runs are not at their goal.

    Where some are asked for, these runs whatever their state. --csv and --json have all that are asked for.
    """
    if as_csv and as_json:
        raise ConfigError("Give --csv or --json, not both.")
    site = _to_read(config, state_dir)
    choice = Choice(
        states=frozenset(states or ()),
        since=past_moment_of(since, site.now(), "--since"),
        limit=limit,
        is_all=everything or as_csv or as_json,
    )
    choice = offline.choice_of(site, words or (), choice)
    if as_json:
        say_json(offline.status(site, choice))
    elif as_csv:
        for row in csv_rows(choice.listed(choice.named(site.records.values())), site.snapshot):
            say_csv(row)
    else:
        showing.print_status(site, choice)
    return ExitCode.FINE


@app.command("top")
def top_command(words: Words = None, config: Config = None, state_dir: StateDir = None) -> int:
    """Show how it is, live, until q or Ctrl-C: what is under way, how fast, how long still, and the limit in force."""
    _to_read(config, state_dir)
    return top.top(lambda: Site(config, state_dir), lambda site: offline.choice_of(site, words or (), Choice()))


@app.command("log")
def log_command(
    word: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|EQUIPMENT",
            help="A run's own log, or the agent's lines about an instrument; without it, all of the agent's log.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="The last lines, and those that come, until Ctrl-C.")
    ] = False,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Print what was logged; times are UTC."""
    return following.log(_to_read(config, state_dir), word, is_followed=follow)


@app.command()
def show(run: Run, as_json: Json = False, config: Config = None, state_dir: StateDir = None) -> int:
    """Say everything about one run: where it is, why, its findings, who let it through, and its history."""
    site = _to_read(config, state_dir)
    found = offline.run_in_full(site, run)
    overrides = overriding.listed_of(site, found.run_path)
    if as_json:
        say_json({**found.to_json(), "overrides": [one.to_json() for one in overrides]})
    else:
        showing.print_run(found, [overriding.line_of(one) for one in overrides])
    return ExitCode.FINE


@app.command()
def problems(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN|EQUIPMENT|PROJECT...]",
            help="Of these only. Or: dismiss ID, to have a soft finding or an orphan listed no more.",
        ),
    ] = None,
    code: Annotated[str, typer.Option("--class", metavar="C", help="Of this code only, each by itself.")] = "",
    severity: Annotated[Severity | None, typer.Option("--severity", help="hard or soft only.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were dismissed.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="With dismiss: why; goes into the audit trail.")] = "",
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="T",
            help="With dismiss: 2026-10-18 (its end, in this PC's time zone), 2026-10-18T09:14:22Z, or 30d; else for good.",
        ),
    ] = None,
    as_json: Json = False,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """List what needs a person, worst first, with the command that helps; or dismiss what nobody has to see to."""
    if words and words[0] == "dismiss":
        return needing.dismiss(Site(config, state_dir), words[1:], reason=reason, until=until)
    if reason or until:
        raise ConfigError("--reason and --until belong to `problems dismiss ID`.")
    asked = Wanted(code=code, severity=severity, has_dismissed=everything)
    return needing.list_all(_to_read(config, state_dir), words or (), asked, as_json=as_json)


@app.command()
def sync(run: Run, config: Config = None, state_dir: StateDir = None) -> int:
    """Look at one run now and, if it is complete, bring it to the NAS before all others of its instrument."""
    return work.sync_run(Site(config, state_dir), run)


@app.command()
def retry(
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN...", help="Runs that failed or wait.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every run that failed or waits for its next attempt.")
    ] = False,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Try runs again that failed, were cancelled or wait for their next attempt; the attempts count from 0."""
    return work.retry(Site(config, state_dir), runs or (), is_all=everything)


@app.command()
def cancel(
    run: Run,
    reason: Annotated[str, typer.Option("--reason", help="Why; goes into the audit trail, and `problems` tells it.")],
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """End what is under way with one run; it stays `failed`, also where it changes, until `retry`."""
    return work.cancel(Site(config, state_dir), run, reason)


@app.command()
def forget(
    word: Annotated[str, typer.Argument(metavar="RUN|EQUIPMENT", help="A run, or an instrument with its runs.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; goes into the audit trail.")],
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """List no more what nobody can mend: of what is gone, no longer configured, or lost. The record stays."""
    return needing.forget(Site(config, state_dir), word, reason)


@app.command()
def verify(run: Run, config: Config = None, state_dir: StateDir = None) -> int:
    """Start one more verify pass over a sealed run now."""
    site = Site(config, state_dir)
    path, record = work.known(site, run)
    command = VerifyNow(operator_here(), job_id=record.job_id)
    return work.act(site, command, run_paths=frozenset({path}), asks_attention=True)


@app.command()
def resolve(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN...|EQUIPMENT]", help="Runs, or an equipment: each of its runs in conflict."),
    ] = None,
    use: Annotated[
        str | None, typer.Option("--use", metavar="SIDE", help="Which side counts: local or nas-manifest.")
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="What others have at the destination goes aside there; what is equal stays."),
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every run in conflict.")] = False,
    accept_trail: Annotated[
        bool, typer.Option("--accept-trail", help="Instead of runs: the state as it is now counts, and the hold ends.")
    ] = False,
    accept_machine: Annotated[
        bool, typer.Option("--accept-machine", help="Instead of runs: this machine goes on with the state folder.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; goes into the audit trail.")] = "",
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Resolve conflicts; `show RUN` says what helps. What must make room on the NAS is moved aside there, never removed.

    --use local: the data here win. --use nas-manifest: the sealed copy counts, where no data file is left here. --take-over: so
    they do where others hold the destination. Or, with --accept-trail, say that the state that was found after damage is to count;
    or, with --accept-machine, that a state folder that was moved to this machine is at home here from now on.
    """
    site = Site(config, state_dir)
    return resolving.resolve(
        site,
        list(runs or ()),
        use=use,
        takes_over=take_over,
        is_for_all=everything,
        accepts_trail=accept_trail,
        accepts_machine=accept_machine,
        reason=reason,
    )


@app.command("diagram")
def diagram_command(
    counts: Annotated[bool, typer.Option("--counts", help="Say how many runs are in each state.")] = False,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help=f"{', '.join(drawing.FORMATS)}; else by the name of FILE."),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="The way that this run took, with times and counts.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", metavar="FILE", parser=given_path, help="Write this new file, instead of printing it."),
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Draw the statechart: which states a run may be in, and what leads from one to the other."""
    if counts and run is not None:
        raise ConfigError("Give --counts for all runs, or --run for one.")
    site = _to_read(config, state_dir) if counts or run is not None else Site(config, state_dir)
    overlay = NOTHING
    if counts:
        overlay = drawing.counts_of(site)
    if run is not None:
        path, record = work.known(site, run)
        overlay = drawing.way_of(site, path, record.job_id)
    return drawing.draw(site, overlay, form=form, out=out)


def _to_read(config: Path | None, state_dir: Path | None) -> Site:
    """Return what a command starts from that only reads. Raises: NoStateFolderError."""
    site = Site(config, state_dir)
    site.require_state_dir()
    return site


@override_app.command("add")
def override_add(
    run: Run,
    problem_class: Annotated[
        str,
        typer.Option(
            "--class",
            metavar="CLASS",
            help=f"The rule to override: {RULES}.",
        ),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; recorded in creation.json and in the audit trail.")],
    operator: Annotated[str | None, typer.Option("--operator", help="Who; the login name by default.")] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            metavar="T",
            help="2026-10-18 (the end of that day in this PC's time zone), 2026-10-18T09:14:22Z, or 30d, 12h from now; else never.",
        ),
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Let a run through although it breaks a rule."""
    site = Site(config, state_dir)
    return overriding.add(site, run, problem_class, reason=reason, operator=operator, expires=expires)


@override_app.command("revoke")
def override_revoke(
    run: Run,
    override_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the override.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; recorded in creation.json and in the audit trail.")],
    operator: Annotated[str | None, typer.Option("--operator", help="Who; the login name by default.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Take an override back by a tombstone; the entry itself stays."""
    return overriding.revoke(Site(config, state_dir), run, override_id, reason=reason, operator=operator)


@override_app.command("list")
def override_list(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help=f"{RUN_HELP} Without one, all runs that are known.")
    ] = None,
    as_json: Json = False,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """List overrides: of what, by whom, why, until when, and which of them count now."""
    return overriding.list_all(_to_read(config, state_dir), run, as_json=as_json)

"""`camora workflow …`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import cyclopts
from camora.command_options import JsonOption, Which, YesOption
from camora.errors import CamoraError, ConfigurationError
from camora.interfaces.workflows import WorkflowRecord
from camora.masking import masked
from camora.outcome import CancelResult, Status
from camora.units import duration

from camora_workflows import showing
from camora_workflows.answered import Answer, answers_to_failures
from camora_workflows.desk import Desk, Seen, with_desk
from camora_workflows.examining import Finding
from camora_workflows.recovering import Recovered
from camora_workflows.telling import confirmed, console, note, print_json, say

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["build"]

T = TypeVar("T")

_OK, _STALLED, _ERROR, _NOT_FOUND = 0, 1, 2, 3
_COMES_TO = [status.value for status in Status if status.finished]
_ENDS = " or ".join((", ".join(_COMES_TO[:-1]), _COMES_TO[-1]))
_MOST = 20
"""How many members of a group are drawn, unless all are asked for."""
_NAMED = 3
"""How many jobs are named in one line."""
_CANCELLED = {
    CancelResult.REMOVED: "cancelled: nothing of it runs any more",
    CancelResult.SIGNALLED: "cancelled, and workers were told: a coroutine is interrupted, others run to their ends",
    CancelResult.FINISHED: "too late: it has ended already",
}


_ANY = Which()
_Id = Annotated[str, cyclopts.Parameter(help="The workflow's id, as its dispatch returned it.")]
_State = Annotated[str, cyclopts.Parameter(name="--state", help="Only those that are: recording, running or finished.")]


def build(find_app: Callable[..., Any]) -> cyclopts.App:
    """The commands; the function finds an app as the core's commands do."""
    app = cyclopts.App(name="workflow", help="Show, mend, cancel, retry or purge workflows.")
    commands = _Commands(find_app)
    app.command(commands.list_workflows, name="list")
    for command in (commands.show, commands.recover, commands.purge, commands.cancel, commands.retry):
        app.command(command)
    return app


class _Commands:
    """Each method is a command."""

    def __init__(self, find_app: Callable[..., Any]) -> None:
        self._find_app = find_app

    def _run(self, which: Which, work: Callable[[Desk], Awaitable[T]]) -> T:
        found = self._find_app(which.app, config=which.config, profile=which.profile)
        return asyncio.run(with_desk(found, work))

    def list_workflows(
        self,
        *,
        state: _State = "",
        status: Annotated[
            str, cyclopts.Parameter(name="--status", help=f"Only those that have come to this: {_ENDS}.")
        ] = "",
        limit: Annotated[int, cyclopts.Parameter(name=["--limit", "-n"], help="At most so many.")] = 100,
        as_json: JsonOption = False,
        which: Which = _ANY,
    ) -> int:
        """List workflows, the oldest first."""
        _check_state(state, "; --status {} lists those that have ended so")
        _check_status(status, state)

        async def work(desk: Desk) -> tuple[list[WorkflowRecord], int]:
            return await desk.listed(state, status, limit), desk.now

        records, now = self._run(which, work)
        _print_list(records, now, as_json=as_json, limit=limit, of_all=not (state or status))
        return _OK

    def show(
        self,
        workflow_id: _Id,
        /,
        *,
        everything: Annotated[
            bool,
            cyclopts.Parameter(
                name="--all", negative=(), show_default=False, help=f"All members of groups of more than {_MOST}, too."
            ),
        ] = False,
        as_json: JsonOption = False,
        which: Which = _ANY,
    ) -> int:
        """Draw a workflow as a tree, with states and times; exits with 3 when there is none of this id."""

        async def work(desk: Desk) -> Seen | None:
            return await desk.seen(workflow_id, most=None if everything or as_json else _MOST)

        seen = self._run(which, work)
        if seen is None:
            return _unknown(workflow_id)
        _print_seen(seen, as_json=as_json)
        return _OK

    def recover(
        self,
        workflow_id: Annotated[
            str, cyclopts.Parameter(help="Only this one; default: every workflow that is not finished.")
        ] = "",
        /,
        *,
        dry_run: Annotated[
            bool,
            cyclopts.Parameter(
                name="--dry-run", negative=(), show_default=False, help="Show what would be mended, and mend nothing."
            ),
        ] = False,
        quiet: Annotated[
            str,
            cyclopts.Parameter(
                name="--quiet",
                help="Where the broker does not show its jobs: take those of workflows that have not changed for so "
                'long for lost, and send them again. Those of tasks with ack="before" have failed then.',
            ),
        ] = "1h",
        as_json: JsonOption = False,
        which: Which = _ANY,
    ) -> int:
        """Find workflows that stand still for ever, and mend them: what was killed half-way, purged or abandoned.

        Workers mend by themselves what they can be sure of; this looks closer, and for lost jobs, too. It may be run at
        any time, and beside workers. Exits with 0 when all is healthy, or was mended; with 1 when something is stalled
        (that is what a dry run finds, or what could not be mended); with 2 on an error; with 3 when there is no
        workflow of this id.
        """
        still = _seconds("--quiet", quiet)

        async def work(desk: Desk) -> list[Recovered] | None:
            return await desk.recovered(workflow_id, dry_run=dry_run, quiet=still)

        try:
            found = self._run(which, work)
        except CamoraError as error:
            note(str(error))
            return _ERROR
        if found is None:
            return _unknown(workflow_id)
        _print_recovered(found, dry_run=dry_run, as_json=as_json)
        return _OK if all(one.mended for one in found) else _STALLED

    def purge(
        self,
        *,
        older_than: Annotated[
            str, cyclopts.Parameter(name="--older-than", help="Those that were last changed longer ago: 12h, 7d.")
        ] = "0s",
        state: _State = "finished",
        dry_run: Annotated[
            bool,
            cyclopts.Parameter(
                name="--dry-run",
                negative=(),
                show_default=False,
                help="Show what would be deleted, and delete nothing.",
            ),
        ] = False,
        yes: YesOption = False,
        as_json: JsonOption = False,
        which: Which = _ANY,
    ) -> int:
        """Delete what is kept of workflows, before its time is over; jobs of running ones come to nothing."""
        _check_state(state)
        age = _seconds("--older-than", older_than)

        async def count(desk: Desk) -> int:
            return len(await desk.purgeable(state, age))

        number = self._run(which, count)
        what = f"{number:,} {state or 'unfinished or finished'} workflow{'' if number == 1 else 's'}"
        if dry_run or not number or not confirmed(f"Delete all that is known of {what}?", yes=yes):
            deleted = 0
        else:
            deleted = self._run(which, lambda desk: desk.purged(state, age))
        if as_json:
            print_json({"found": number, "deleted": deleted, "dry_run": dry_run})
        else:
            say(f"{what} would be deleted" if dry_run else f"{deleted:,} deleted")
        return _OK

    def cancel(self, workflow_id: _Id, /, *, as_json: JsonOption = False, which: Which = _ANY) -> int:
        """Stop a workflow: what has not begun never will, what runs as a coroutine is interrupted."""

        async def work(desk: Desk) -> CancelResult:
            return await desk.composer.handle(workflow_id).cancel()

        answer = self._run(which, work)
        if as_json:
            print_json({"id": workflow_id, "answer": str(answer)})
        elif answer is not CancelResult.UNKNOWN:
            say(f"{workflow_id}: {_CANCELLED[answer]}")
        return _unknown(workflow_id) if answer is CancelResult.UNKNOWN else _OK

    def retry(self, workflow_id: _Id, /, *, as_json: JsonOption = False, which: Which = _ANY) -> int:
        """Run the failed, expired and cancelled jobs of a workflow again, and what was skipped because of them.

        What has run on_failure of them already does not run again, and is not undone: that is said before.
        """

        async def work(desk: Desk) -> tuple[Sequence[Answer], int] | None:
            if await desk.store.get(workflow_id) is None:
                return None
            answers = await answers_to_failures(desk.store, workflow_id)
            if answers and not as_json:
                note(f"{workflow_id}: {_answered(answers)}")
            return answers, await desk.composer.handle(workflow_id).retry()

        done = self._run(which, work)
        if done is None:
            return _unknown(workflow_id)
        answers, count = done
        if as_json:
            ran = [{"job": answer.job, "task": answer.task} for answer in answers]
            print_json({"id": workflow_id, "retried": count, "on_failure_ran": ran})
        elif count:
            say(f"{workflow_id}: {count:,} job{'' if count == 1 else 's'} will run again")
        else:
            say(f"{workflow_id}: no job of it has failed, expired or been cancelled")
        return _OK


def _answered(answers: Sequence[Answer]) -> str:
    which = ", ".join(f"{answer.task} ({answer.job})" for answer in answers[:_NAMED])
    more = f" and {len(answers) - _NAMED:,} more" if len(answers) > _NAMED else ""
    return f"on_failure has run already, and does not run again: {which}{more}"


def _print_list(records: Sequence[WorkflowRecord], now: int, *, as_json: bool, limit: int, of_all: bool) -> None:
    if as_json:
        print_json([showing.listed(record) for record in records])
        return
    if not records:
        say("there are no workflows" if of_all else "there are no such workflows")
        return
    rows = [
        (
            record.id,
            record.status or record.state,
            f"{record.nodes - record.open:,} of {record.nodes:,}",
            showing.ago(record.created, now, units=1),
            showing.ago(record.changed, now, units=1),
        )
        for record in records
    ]
    names = ("workflow", "state", "ended", "begun", "changed")
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    screen = console()
    # Of what it is, only as much as fits is shown, in one line; the others are worth nothing when they are cut.
    room = max(10, screen.width - sum(widths) - 2 * len(widths))
    screen.print(_row(names, widths, "what", room), style="bold", no_wrap=True, overflow="ignore", crop=False)
    for record, row in zip(records, rows, strict=True):
        line = _row(row, widths, masked(record.name), room)
        line.stylize(showing.style_of(row[1]), widths[0] + 2, widths[0] + 2 + len(row[1]))
        screen.print(line, no_wrap=True, overflow="ignore", crop=False)
    if len(records) == limit:
        note(f"there may be more than {limit}; --limit shows them")


def _row(cells: Sequence[str], widths: Sequence[int], last: str, room: int) -> Text:
    from rich.text import Text

    line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return Text(f"{line}  {last if len(last) <= room else last[: room - 1] + '…'}")


def _print_seen(seen: Seen, *, as_json: bool) -> None:
    if as_json:
        print_json(showing.as_data(seen.record, seen.plan, seen.shapes, seen.infos, seen.lost))
        return
    first, *rest = showing.heading(seen.record, seen.plan, seen.shapes, seen.now)
    console().print(showing.as_tree(first, rest, seen.branches, seen.infos, seen.lost, seen.now))


def _print_recovered(found: Sequence[Recovered], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "healthy": not found,
                "dry_run": dry_run,
                "workflows": [
                    {
                        **showing.listed(one.record),
                        "found": [_finding(finding) for finding in one.found],
                        "mended": one.mended,
                        "left": [_finding(finding) for finding in one.left or ()],
                    }
                    for one in found
                ],
            }
        )
        return
    if not found:
        say("all workflows are healthy")
    for one in found:
        say(f"{one.record.id}  {one.record.name}".rstrip())
        for finding in one.found:
            say(f"  {finding.what}: {finding.text}")
        if not dry_run:
            say("  mended" if one.mended else "  could not be mended:")
        for finding in one.left or ():
            say(f"    {finding.what}: {finding.text}")
    if found and dry_run:
        say(f"{len(found):,} to mend; nothing was done (--dry-run)")


def _finding(finding: Finding) -> dict[str, Any]:
    return {"what": finding.what, "text": finding.text, "nodes": list(finding.nodes)}


def _unknown(workflow: str) -> int:
    whole, _, number = workflow.rpartition(".")
    if whole and number.isdecimal():
        note(f"{workflow} looks like the id of a job of workflow {whole}: camora workflow show {whole}")
    note(
        f"there is no workflow {workflow}: it never was, it was purged, or it ended longer ago than workflows are "
        "kept. One that was dispatched without a store is not recorded: camora job show tells what it came to"
    )
    return _NOT_FOUND


def _check_state(state: str, hint: str = "; all that have ended, however that was, are finished") -> None:
    if state not in ("", "recording", "running", "finished"):
        more = hint.format(state) if state in _COMES_TO else ""
        raise ConfigurationError(f"--state {state}: one of recording, running or finished{more}")


def _check_status(status: str, state: str) -> None:
    if status and status not in _COMES_TO:
        hint = f"; --state {status} lists those that are {status}" if status in ("recording", "running") else ""
        raise ConfigurationError(f"--status {status}: one of {_ENDS}{hint}")
    if status and state not in ("", "finished"):
        raise ConfigurationError(
            f"--status {status} --state {state}: only a finished workflow has come to something; leave out --state"
        )


def _seconds(option: str, text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from None

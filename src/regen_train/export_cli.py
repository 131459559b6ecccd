"""``regen_train export``: options, and the table of what was written."""

from regen_train.export import FORMATS, ExportMismatchError, ExportReport, export_checkpoint


def main(arguments: list[str]) -> None:
    """Parse the command line, export, and print each file with how far it is from the trained model."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="regen_train export", description="Write trained weights for other tools.")
    parser.add_function_arguments(export_checkpoint, skip={"formats", "ema"}, as_positional=False)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="what to write")
    parser.add_argument("--ema", action="store_true", help="export the moving average instead of the weights")
    try:
        report = export_checkpoint(**vars(parser.parse_args(arguments)))
    except ExportMismatchError as error:
        raise SystemExit(f"regen_train export: nothing was written: {error}") from error
    print(describe(report))


def describe(report: ExportReport) -> str:
    """Return the table of what was written."""
    rows = [("format", "file", "difference", "limit")]
    rows += [(f.format, str(f.path), f"{f.difference:.1e}", f"{f.limit:.1e}") for f in report.files]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"each file was reloaded and compared with the trained model; model card: {report.card}"])

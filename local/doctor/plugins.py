"""The plug-ins that are installed beside this command; the api and the workers may have others."""

from collections.abc import Iterator

from core.recipe.plugin_probe import PROBE_SECONDS
from core.recipe.plugins import Plugin, installed_plugins
from local.doctor.checks import PATIENCE_SECONDS, CheckResult, passed_check, warning_check

SECONDS = PROBE_SECONDS + PATIENCE_SECONDS


def plugin_checks() -> Iterator[CheckResult]:
    """What each of them adds, and why others are refused. Nothing where nothing is installed."""
    plugins = installed_plugins()
    for plugin in plugins.joined:
        yield passed_check("plugins", f"{plugin.name} {plugin.version}: {_offer(plugin)}")
    for refused in plugins.refused:
        do = "mend it or uninstall it, and start the api and the workers again; see docs/plugins.md"
        listed = ", ".join(refused.entry_points)
        message = f"{refused.name} {refused.version} ({listed}) is refused: {refused.reason}"
        yield warning_check("plugins", message, do)


def _offer(plugin: Plugin) -> str:
    named = (f"{each.model_fields['name'].default} ({group.partition('.')[2]})" for group, each in plugin.components)
    return ", ".join(named)

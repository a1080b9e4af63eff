"""Prompts: a text that is put in front of every query, for models that were trained with one."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import InputError, InputTypeError
from ..inputs import check_text, show

logger = logging.getLogger("numbert")


class Prompts(NamedTuple):
    """The prompts of a model and which of them is used when none is named."""

    by_name: dict[str, str]
    default_name: str | None

    def choose(self, prompt: str | None, name: str | None) -> str:
        """Return the prompt of a call: as given, else by its name, else the default; "" for none.

        Raises
        ------
        InputError, InputTypeError
            When no prompt has the name, or the prompt is no string of valid Unicode.
        """
        if prompt is not None:
            prompt = check_text(prompt, "prompt")
            if name is not None:
                logger.warning(
                    "Provide either a `prompt`, a `prompt_name`, or neither, but not both. "
                    "Ignoring the `prompt_name` in favor of `prompt`."
                )
            return prompt
        if name is not None and _plain(name) not in self.by_name:
            raise InputError(
                f"Prompt name {show(name)} not found in the configured prompts dictionary with keys"
                f" {list(self.by_name)!r}."
            )
        chosen = _plain(name) if name is not None else self.default_name
        return self.by_name.get(chosen, "") if chosen is not None else ""


def check_prompts(prompts: Any, default_name: Any) -> Prompts:
    """Return the prompts that a constructor was given.

    Raises
    ------
    InputError, InputTypeError
        When they are no dictionary of strings, or the default is none of their names.
    """
    if not isinstance(prompts, Mapping):
        raise InputTypeError(f"prompts: found {type(prompts).__name__}, expected a dict of strings; pass one")
    checked = {
        check_text(name, "prompts"): check_text(text, f"prompts[{show(name)}]") for name, text in prompts.items()
    }
    default = _plain(default_name)
    if default_name is not None and default not in checked:
        raise InputError(f"default_prompt_name: found {show(default_name)}, expected one of {list(checked)}; add it")
    return Prompts(checked, default)


def _plain(name: Any) -> str | None:
    """Return the characters of a string of whatever class; None for anything else, which names no prompt."""
    return str.__str__(name) if issubclass(type(name), str) else None

"""Prompts: a text that is put in front of every query, for models that were trained with one."""

import logging
from typing import NamedTuple

from .errors import InputError

logger = logging.getLogger("numbert")


class Prompts(NamedTuple):
    """The prompts of a model and which of them is used when none is named."""

    by_name: dict[str, str]
    default_name: str | None

    def choose(self, prompt: str | None, name: str | None) -> str:
        """Return the prompt of a call: as given, else by its name, else the default; "" for none.

        Raises
        ------
        InputError
            When no prompt has the name.
        """
        if prompt is not None:
            if name is not None:
                logger.warning(
                    "Provide either a `prompt`, a `prompt_name`, or neither, but not both. "
                    "Ignoring the `prompt_name` in favor of `prompt`."
                )
            return prompt
        if name is not None and name not in self.by_name:
            raise InputError(
                f"Prompt name '{name}' not found in the configured prompts dictionary with keys {list(self.by_name)!r}."
            )
        chosen = name if name is not None else self.default_name
        return self.by_name.get(chosen, "") if chosen is not None else ""

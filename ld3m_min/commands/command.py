"""A command with a preset, a configuration whose every field is an option, and own options."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, get_args

import tyro
import yaml

from ld3m_min.commands.fields import said_type, shown, with_options, without_empty
from ld3m_min.commands.old_names import translated
from ld3m_min.commands.options import Options, with_homes
from ld3m_min.config import joined, nested_fields, to_dict
from ld3m_min.errors import InputError
from ld3m_min.io.paths import expanded, folder_text
from ld3m_min.io.text import yaml_of
from ld3m_min.io.values import converted, from_dict, hints_of
from ld3m_min.presets import RULED_BY

HELP = ("-h", "--help")
OptionsT = TypeVar("OptionsT", bound=Options)
ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class Call(Generic[OptionsT, ConfigT]):
    """What one command line asks for.

    Attributes:
        preset: name of the preset.
        given: nested fields that the file and the options set; the others are the preset's.
        config: the whole configuration.
        options: of the run.
    """

    preset: str
    given: Mapping[str, Any]
    config: ConfigT
    options: OptionsT


@dataclass(frozen=True)
class Command(Generic[OptionsT, ConfigT]):
    """One command of the command line.

    Attributes:
        name: as it is typed.
        about: its help.
        options: dataclass of the options of the run.
        config: dataclass of the configuration.
        presets: name -> what it is.
        preset: the one that is taken where none is named.
        base: the preset's configuration, from the preset's name, the fields that were given (which
            others may depend on) and the options; None where only help is asked for.
        run: does the work.
        own: the preset of a folder of one's own images, which may stand in the preset's place; ""
            where none may.
        positional: whether its options have a word without a name, which stands after the preset,
            or first where none is named.
    """

    name: str
    about: str
    options: type[OptionsT]
    config: type[ConfigT]
    presets: Mapping[str, str]
    preset: str
    base: Callable[[str, Mapping[str, Any], OptionsT | None], ConfigT]
    run: Callable[[Call[OptionsT, ConfigT]], None]
    own: str = ""
    positional: bool = False

    def parse(self, words: Sequence[str]) -> Callable[[], None]:
        """What the words after the command ask for, ready to be called.

        Raises:
            InputError: a preset, field or value is unknown or doesn't fit.
            SystemExit: help was asked for (code 0), or an option is unknown (code 2).
        """
        words = translated(self.name, words)
        if any(word in HELP for word in words):
            self._help([word for word in words if word not in HELP])
        call = self.resolved(words)
        return partial(self._print, call) if call.options.dry_run else partial(self.run, call)

    def resolved(self, words: Sequence[str]) -> Call[OptionsT, ConfigT]:
        """The configuration and options that the words after the command ask for.

        First comes the preset, for what its values depend on; then the file; then the options.

        Args:
            words: as tyro knows them, see :func:`~ld3m_min.commands.old_names.translated`.

        Raises:
            InputError: a preset, field or value is unknown or doesn't fit.
            SystemExit: an option is unknown (code 2).
        """
        said = self._cli(words, self._said_type(self.preset))
        said = replace(said, run=with_homes(said.run))
        file = {} if said.run.config is None else read_fields(said.run.config, self.config)
        words_said = without_empty(said.fields)
        if self.own:
            said = self._with_folder(said, words_said)
        given = joined(file, words_said, self.config, extend=True)
        if self.own and said.preset == self.own and given.get("dataset"):
            # a folder that is called as a data set or preset is stays the folder from here on
            words_said["dataset"] = given["dataset"] = folder_text(str(given["dataset"]))
        try:
            base = to_dict(self.base(said.preset, given, said.run))
            values = joined(base, file, self.config)
            values = joined(values, words_said, self.config, extend=True)
            config = from_dict(self.config, values)
        except InputError as error:
            error.args = (with_options(str(error), self.config),)
            raise
        return Call(said.preset, given, config, said.run)

    def _with_folder(self, said: Any, fields: dict[str, Any]) -> Any:
        """What was said, with a folder in the preset's place brought to where it belongs.

        Args:
            said: what tyro read.
            fields: the fields that were given; gains the folder as `dataset`.

        Raises:
            InputError: the word is neither a preset nor a folder, is in the home of a user that
                there isn't, or there are two data sets.
        """
        word, there = said.preset, expanded(said.preset).exists()
        if word in self.presets:
            if there and "dataset" not in fields:
                warnings.warn(
                    f"{word!r} is taken for the preset of that name; ./{word} is the folder here",
                    stacklevel=2,
                )
            return said
        if not there:
            raise InputError(
                f"unknown preset {word!r}; choose {', '.join(self.presets)}. There is no folder of "
                "that name either; images of your own stand in one subfolder per class, and a data "
                "set by its name goes after --dataset"
            )
        if "dataset" in fields:
            raise InputError(
                f"the folder {word} and --dataset {fields['dataset']} are two data sets; give one "
                "of them"
            )
        fields["dataset"] = word
        return replace(said, preset=self.own)

    def _said_type(self, preset: str, defaults: dict[str, Any] | None = None) -> Any:
        """The type of what a command line says: preset, options, and the fields that are given.

        Args:
            preset: the default.
            defaults: fields to show as defaults in the help. None to leave out what isn't given.
        """
        listed = "\n\n".join(f"{name}: {about}" for name, about in self.presets.items())
        positional = tyro.conf.arg(
            help=listed, metavar="[PRESET|FOLDER]" if self.own else "[PRESET]"
        )
        plain = tyro.conf.arg(name="")  # its options have no prefix
        said = said_type(self.config, "(default: the preset's)" if defaults is None else None)
        default = field() if defaults is None else field(default_factory=lambda: defaults)
        return make_dataclass(
            self.name,
            [
                ("preset", Annotated[tyro.conf.Positional[str], positional], field(default=preset)),
                ("run", Annotated[self.options, plain]),
                ("fields", Annotated[said, plain], default),
            ],
            kw_only=True,
            frozen=True,
        )

    def _cli(self, words: Sequence[str], kind: Any, *, quiet: bool = False) -> Any:
        """What tyro reads from the words."""
        if self.positional and words and words[0] not in self.presets:
            alone = len(words) < 2 or words[1].startswith("-")
            if alone and not words[0].startswith("-"):  # tyro would take it for the preset
                words = [self.preset, *words]
        said = tyro.cli(
            kind,
            args=words,
            prog=f"ld3m_min {self.name}",
            description=self.about,
            console_outputs=not quiet,
        )
        if said.preset == "[]":  # so tyro gives one that is left out before a required word
            return replace(said, preset=self.preset)
        return said

    def _help(self, words: Sequence[str]) -> None:
        """Print the help, with the values of what the words say as the defaults, and leave."""
        try:
            said = self._cli(words, self._said_type(self.preset), quiet=True)
            preset, given, options = said.preset, without_empty(said.fields), said.run
        except SystemExit:  # help is for those who don't know the options yet
            preset, given, options = words[0] if words else self.preset, {}, None
        if preset not in self.presets:
            preset = self.preset
        try:
            base = self.base(preset, given, options)
        except (InputError, OSError):
            base = self.base(preset, {}, None)
        self._cli(HELP[1:], self._said_type(preset, shown(to_dict(base), self.config)))

    def _print(self, call: Call[OptionsT, ConfigT]) -> None:
        """The configuration as YAML, and what else the command would run with as comments."""
        print(f"# {self.name}, preset {call.preset}")
        for option in fields(call.options):
            if option.name not in ("config", "dry_run"):
                print(f"# {option.name}: {getattr(call.options, option.name)}")
        print(yaml.safe_dump(to_dict(call.config), sort_keys=False, allow_unicode=True), end="")


def read_fields(file: Path, kind: type) -> dict[str, Any]:
    """Nested fields of a configuration, from a YAML file; their values are not checked.

    Args:
        file: to read.
        kind: dataclass of the configuration.

    Raises:
        InputError: the file is not YAML, or holds something else than fields.
        OSError: it can't be read.
    """
    return _checked_fields(yaml_of(file.read_bytes(), file), kind, f"{file}:")


def _checked_fields(found: object, kind: type, where: str) -> dict[str, Any]:
    """What a file holds, if it is fields of the dataclass `kind`, at any depth."""
    if not isinstance(found, dict):
        raise InputError(f"{where} must be fields and their values, not {found!r}")
    known, nested, hints = [f.name for f in fields(kind)], nested_fields(kind), hints_of(kind)
    if unknown := [str(name) for name in found if name not in known]:
        raise InputError(f"{where} unknown field {unknown[0]}; known are {', '.join(known)}")
    for name, value in found.items():
        if name in nested and not (value is None and type(None) in get_args(hints[name])):
            _checked_fields(value, nested[name], f"{where} {name}")
    return found


def ruling(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given fields that a preset's other values depend on.

    Args:
        kind: dataclass of the configuration.
        given: its fields.

    Raises:
        InputError: one of them is of another type.
    """
    hints = hints_of(kind)
    return {k: converted(hints[k], given[k], f"config.{k}") for k in RULED_BY if k in given}

"""Everything this package raises on purpose.

QmlError                       catch this to catch all of them
├── DataError(ValueError)      the input is wrong: mend the bars, the entry or the argument
├── LookAheadError             the question would need the future: ask with a later ``as_of``
├── RegistryError              the database cannot serve: see the subclass
│   ├── SchemaTooOld           run the upgrade command that the message names
│   ├── SchemaTooNew           update qml_plugin; the file was left alone
│   ├── RegistryBusy           another writer holds the lock: try again
│   └── RegistryCorrupt        not a database of ours, or damaged: restore the backup
├── RetrievalError             the neighbour search was asked something impossible
├── GateError                  the confidence model cannot answer: see the subclass
│   ├── NotFitted              fit first
│   ├── FeatureMismatch        the model was trained on other features: retrain
│   └── ModelLoadError         the model file is damaged or not a model
└── MissingExtra(ImportError)  an optional library is absent: the message holds the install command

There is one class per kind of recovery. A message says what was refused, the value seen and where,
the rule, and the way out.
"""

from __future__ import annotations


class QmlError(Exception):
    """Base of every error raised on purpose by qml_plugin."""


class DataError(QmlError, ValueError):
    """The input breaks a stated rule; nothing was stored."""


class LookAheadError(QmlError):
    """The answer would depend on something not yet known at the time of the question."""


class RegistryError(QmlError):
    """The registry cannot be opened, read or written."""


class SchemaTooOld(RegistryError):
    """The database was written by an older version and must be upgraded first."""


class SchemaTooNew(RegistryError):
    """The database was written by a newer version; it was not touched."""


class RegistryBusy(RegistryError):
    """Another process held the write lock for longer than the timeout; retry."""


class RegistryCorrupt(RegistryError):
    """The file is not a registry of ours, or it is damaged."""


class RetrievalError(QmlError):
    """A neighbour search was asked for something it cannot answer."""


class GateError(QmlError):
    """The confidence model cannot answer."""


class NotFitted(GateError):
    """The model was asked for a score before it was fitted."""


class FeatureMismatch(GateError):
    """The features offered are not the features the model was trained on."""


class ModelLoadError(GateError):
    """A model file is damaged, or is not a model."""


class MissingExtra(QmlError, ImportError):
    """An optional library is not installed."""

    @classmethod
    def for_module(cls, module: str, extra: str) -> MissingExtra:
        """Name the missing module and the command that installs it."""
        return cls(
            f"{module} is not installed and this call needs it. Install it with: pip install 'qml-plugin[{extra}]'"
        )

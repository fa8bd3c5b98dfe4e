"""The error classes, where users of the compiler look for them. The runtime raises them too, so vlart.errors defines
them; `except vlacompile.errors.VlaError` catches what either package raises."""

from vlart.errors import (
    BudgetError,
    BundleError,
    CalibrationError,
    CaptureError,
    ConfigError,
    DeployError,
    EmitError,
    OutputError,
    ParityError,
    PassError,
    PrecisionError,
    RuntimeFailure,
    SignatureError,
    SourceError,
    StagingError,
    UsageError,
    VlaError,
    WorkerError,
)

__all__ = [
    "BudgetError",
    "BundleError",
    "CalibrationError",
    "CaptureError",
    "ConfigError",
    "DeployError",
    "EmitError",
    "OutputError",
    "ParityError",
    "PassError",
    "PrecisionError",
    "RuntimeFailure",
    "SignatureError",
    "SourceError",
    "StagingError",
    "UsageError",
    "VlaError",
    "WorkerError",
]

"""Why the factory may refuse, and whose move it is.

::

    ApplianceError              (appliance.errors)
    └── ExportError
        ├── RecipeError             the recipe or the command has to be mended; lists every problem at once; exit 2
        └── Refused                 the model or the data does not pass; no bundle; exit 3
            ├── ConversionError         torch cannot turn the module into a graph that may be served
            ├── ParityError             the graph does not answer as the module does
            └── CalibrationError        the validation images cannot carry what the recipe asks for

A message is one sentence with the figures in it: the reader is the model's author, at the vendor's desk.
"""

from appliance.errors import ApplianceError


def told(error: BaseException) -> str:
    """What an error of anyone's code says, as the end of a sentence: its kind, and its first line, shortened."""
    first = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
    return f"{type(error).__name__}: {first.strip()[:200]}"


class ExportError(ApplianceError):
    """The root; never raised itself."""


class RecipeError(ExportError):
    """The recipe cannot be used. ``problems`` has one sentence for each thing to mend."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Refused(ExportError):
    """A step of the build refuses; never raised itself."""


class ConversionError(Refused):
    pass


class ParityError(Refused):
    pass


class CalibrationError(Refused):
    pass

"""A plan explained: why it is as it is, and what each component of its network costs in memory and time."""

from planners.explain.explain import explain, explain_json
from planners.explain.explain_plan import explain_configuration, explain_plan
from planners.explain.explanation import Explanation
from planners.explain.explanation_text import explanation_text

__all__ = [
    "Explanation",
    "explain",
    "explain_configuration",
    "explain_json",
    "explain_plan",
    "explanation_text",
]

"""A plan explained: why it is as it is, and what each component of its network costs in memory and time."""

from planners.explain.explanation import Explanation
from planners.explain.explanation_text import explanation_text
from planners.explain.measured_plan import explain, explain_json
from planners.explain.plan_costs import explain_configuration, explain_plan

__all__ = [
    "Explanation",
    "explain",
    "explain_configuration",
    "explain_json",
    "explain_plan",
    "explanation_text",
]

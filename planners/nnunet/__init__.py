"""What nnU-Net calls to plan an experiment, and the same for a program.

``DinoMed3DPlanner`` is found by nnU-Net under its name (``dinomed3d/shims/planner.py`` imports it from here).
"""

from planners.nnunet.plan_dataset import plan_dataset
from planners.nnunet.planner import DinoMed3DPlanner
from planners.report.plan_report import plan_json, plan_report

__all__ = ["DinoMed3DPlanner", "plan_dataset", "plan_json", "plan_report"]

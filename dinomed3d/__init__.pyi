from dinomed3d.inference.in_memory.load_model import VolumeSegmenter as VolumeSegmenter
from dinomed3d.inference.in_memory.load_model import load_model as load_model

__version__: str

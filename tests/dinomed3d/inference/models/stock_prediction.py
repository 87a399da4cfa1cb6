"""What nnUNetv2_predict does with the files of one case, without its processes."""

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot


def stock_prediction(model, files, previous=None):
    """The mask of a model's fold 0, with the labels of a cascade's first model (-prev_stage_predictions)."""
    threads = torch.get_num_threads()
    stage = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    stage.initialize_from_trained_model_folder(str(model), use_folds=(0,))
    plans, configuration = stage.plans_manager, stage.configuration_manager
    image, properties = plans.image_reader_writer_class().read_images([str(f) for f in files])
    labels = None if previous is None else previous[None].astype(np.float32)
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, labels, properties = preprocessor.run_case_npy(
        image, labels, properties, plans, configuration, stage.dataset_json
    )
    if previous is not None:
        values = stage.label_manager.foreground_labels
        data = np.vstack((data, convert_labelmap_to_one_hot(labels[0], values, data.dtype)))
    logits = stage.predict_logits_from_preprocessed_data(torch.from_numpy(data))
    mask = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, stage.label_manager, properties
    )
    torch.set_num_threads(threads)
    return mask

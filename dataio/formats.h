#pragma once

#include <memory>
#include <string>

#include "dataio/dataset.h"

namespace millrace {

// One function a format, each in a file of its own; `open_dataset` picks by the kind in front of the colon.

/// The binary batches of CIFAR-10 in `folder` or its subfolder cifar-10-batches-bin.
std::unique_ptr<Dataset> open_cifar10(const std::string& folder, const OpenOptions& options);

/// A folder of class folders of JPEG and PNG files, or one flat folder of them: a single class.
///
/// Classes and files come in the order of their names' bytes; hidden ones are skipped. A file counts as an
/// image by its ending or else by its first bytes; how it is decoded follows from its first bytes alone, when
/// it is read.
std::unique_ptr<Dataset> open_image_folder(const std::string& folder);

/// Images and labels in MNIST's format, gzipped or not, held in memory.
std::unique_ptr<Dataset> open_idx(const std::string& folder, bool train);

/// The records files that `pattern` names (dataio/glob.h); see dataio/records.h.
std::unique_ptr<Dataset> open_records(const std::string& pattern, const OpenOptions& options);

/// `samples` drawn shapes and textures in ten classes, 32x32 RGB, the same on every machine. The test set
/// shares no random number with the training set.
std::unique_ptr<Dataset> make_synthetic(const std::string& samples, bool train);

}  // namespace millrace

#include "dataio/dataset.h"

#include "dataio/formats.h"
#include "dataio/hash.h"
#include "tensor/error.h"

namespace millrace {

std::uint64_t Dataset::fingerprint() const {
  const DatasetInfo& common = info();
  Hash hash;
  hash.add(size()).add(common.height).add(common.width).add(common.channels);
  for (const std::string& name : common.classes) hash.add(name);
  return hash.value();
}

std::unique_ptr<Dataset> open_dataset(std::string_view name, const OpenOptions& options) {
  constexpr std::string_view kKinds = "cifar10:DIR, images:DIR, idx:DIR, records:GLOB, synthetic:N";
  const std::size_t colon = name.find(':');
  if (colon == std::string_view::npos) {
    throw InputError("data set '{}' names no kind; expected one of {}", name, kKinds);
  }
  const std::string_view kind = name.substr(0, colon);
  const std::string where(name.substr(colon + 1));
  if (where.empty()) throw InputError("data set '{}' says no place; expected one of {}", name, kKinds);
  if (kind == "cifar10") return open_cifar10(where, options);
  if (kind == "images") return open_image_folder(where);
  if (kind == "idx") return open_idx(where, options.train);
  if (kind == "records") return open_records(where, options);
  if (kind == "synthetic") return make_synthetic(where, options.train);
  throw InputError("data set '{}' is of the unknown kind '{}'; expected one of {}", name, kind, kKinds);
}

}  // namespace millrace

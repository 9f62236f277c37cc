#include "tensor/kept_weights.h"

#include <algorithm>
#include <utility>

#include "tensor/cpu/conv/weight_layout.h"

namespace millrace {
namespace {

constinit thread_local KeptWeights* in_use = nullptr;

}  // namespace

struct KeptWeights::Entry {
  std::weak_ptr<Storage> source;  // an address alone may come back with other contents
  std::int64_t offset;
  Layout layout;
  std::uint64_t changes;
  Tensor tensor;

  bool is_for(const Tensor& weight, const Layout& wanted) const {
    return !source.owner_before(weight.storage()) && !weight.storage().owner_before(source) &&
           offset == weight.offset() && layout == wanted;
  }
};

KeptWeights::KeptWeights() = default;
KeptWeights::~KeptWeights() = default;
void KeptWeights::clear() { entries_.clear(); }
std::size_t KeptWeights::size() const { return entries_.size(); }

KeptWeights::Use::Use(KeptWeights& kept) : before_(std::exchange(in_use, &kept)) {}
KeptWeights::Use::~Use() { in_use = before_; }

Tensor* KeptWeights::place(const Tensor& weight, const Layout& layout) {
  // Memory that a recording owns changes without being counted; it is no part.
  if (in_use == nullptr || !weight.storage()->is_part()) {
    return nullptr;
  }
  std::vector<Entry>& entries = in_use->entries_;
  const std::uint64_t changes = weight.storage()->changes();
  auto place =
      std::ranges::find_if(entries, [&](const Entry& entry) { return entry.is_for(weight, layout); });
  if (place == entries.end()) {
    std::erase_if(entries, [](const Entry& entry) { return entry.source.expired(); });
    entries.push_back({weight.storage(), weight.offset(), layout, changes, {}});
    place = entries.end() - 1;
  }
  if (place->changes != changes) {
    place->tensor = {};
    place->changes = changes;
  }
  return &place->tensor;
}

}  // namespace millrace

// The benchmark transformer as a plain LibTorch training loop: no pipeline, no cluster. What one worker is measured
// against (bench/one_worker.py). Usage: plain_loop LAYERS STEPS THREADS [DEVICE]; prints {"step_seconds": median}.

#include <torch/nn.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

constexpr int64_t kModelDim = 256, kHeads = 4, kFeedForward = 1024, kTokens = 32, kBatch = 64;

// torch.nn.TransformerEncoderLayer(batch_first=True, dropout=0).
struct EncoderLayerImpl : torch::nn::Module {
  EncoderLayerImpl()
      : in_projection(register_module("in_projection", torch::nn::Linear(kModelDim, 3 * kModelDim))),
        out_projection(register_module("out_projection", torch::nn::Linear(kModelDim, kModelDim))),
        linear1(register_module("linear1", torch::nn::Linear(kModelDim, kFeedForward))),
        linear2(register_module("linear2", torch::nn::Linear(kFeedForward, kModelDim))),
        norm1(register_module("norm1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({kModelDim})))),
        norm2(register_module("norm2", torch::nn::LayerNorm(torch::nn::LayerNormOptions({kModelDim})))) {}

  at::Tensor Attention(const at::Tensor& x) {
    const auto split = [](const at::Tensor& part) {
      return part.view({part.size(0), part.size(1), kHeads, kModelDim / kHeads}).transpose(1, 2);
    };
    const auto parts = in_projection(x).chunk(3, -1);
    const auto mixed = at::scaled_dot_product_attention(split(parts[0]), split(parts[1]), split(parts[2]));
    return out_projection(mixed.transpose(1, 2).reshape(x.sizes()));
  }

  at::Tensor forward(at::Tensor x) {
    x = norm1(x + Attention(x));
    return norm2(x + linear2(at::relu(linear1(x))));
  }

  torch::nn::Linear in_projection, out_projection, linear1, linear2;
  torch::nn::LayerNorm norm1, norm2;
};
TORCH_MODULE(EncoderLayer);

double Seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: plain_loop LAYERS STEPS THREADS [DEVICE]\n");
    return 2;
  }
  const int steps = std::atoi(argv[2]);
  at::set_num_threads(std::atoi(argv[3]));
  at::globalContext().setAllowTF32CuBLAS(false);
  const c10::Device device(argc > 4 ? argv[4] : "cpu");

  torch::nn::Sequential model;
  for (int i = 0; i < std::atoi(argv[1]); ++i) model->push_back(EncoderLayer());
  model->to(device);
  torch::optim::SGD optimizer(model->parameters(), torch::optim::SGDOptions(0.01));
  const auto x = at::randn({kBatch, kTokens, kModelDim}, at::device(device));
  const auto y = at::randn({kBatch, kTokens, kModelDim}, at::device(device));

  std::vector<double> seconds;
  for (int step = 0; step < steps; ++step) {
    const double begin = Seconds();
    optimizer.zero_grad();
    const auto loss = at::mse_loss(model->forward(x), y);
    loss.backward();
    optimizer.step();
    loss.item<float>();
    seconds.push_back(Seconds() - begin);
  }
  seconds.erase(seconds.begin(), seconds.begin() + std::min<size_t>(2, seconds.size() - 1));
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  std::printf("{\"step_seconds\": %.6f}\n", seconds[seconds.size() / 2]);
}

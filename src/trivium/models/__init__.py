"""Models as flax.nnx modules, one file a family."""

from trivium.models.attentional_lstm import AttentionalLSTM
from trivium.models.bert import Bert, BertClassifier, BertConfig, mean_pool
from trivium.models.boxes import box_iou, generalized_iou, non_maximum_suppression
from trivium.models.convnext import ConvNeXt
from trivium.models.convolution import ConvClassifier
from trivium.models.crf import (
    ChainScores,
    log_partition,
    marginals,
    negative_log_likelihood,
    path_score,
    viterbi,
)
from trivium.models.detector import (
    Detections,
    Detector,
    DetectorMaps,
    Targets,
    decode,
    detection_loss,
    detection_targets,
    focal_loss,
    map_boxes,
)
from trivium.models.efficientnet import EfficientNet, EfficientNetConfig
from trivium.models.experts import MixtureOfExperts
from trivium.models.language import (
    Block,
    CausalAttention,
    FeedForward,
    LanguageModel,
    Recurrence,
    bits_per_symbol,
)
from trivium.models.linear_attention import LinearAttention
from trivium.models.llama import KeyValueCache, Llama, LlamaConfig
from trivium.models.low_rank import (
    LowRank,
    add_low_rank,
    low_rank_weights,
    merge_low_rank,
    set_low_rank_weights,
)
from trivium.models.mlp import MLP
from trivium.models.page import page_layers, with_page_layers
from trivium.models.recurrence import LSTM, LSTMClassifier
from trivium.models.resnet import ResidualBlock, ResNet
from trivium.models.seq2seq import Seq2Seq, Translation
from trivium.models.state_space import SelectiveStateSpace
from trivium.models.structures import (
    hybrid,
    linear_transformer,
    mixture_of_experts,
    recurrent_model,
    selective_model,
    transformer,
)
from trivium.models.tagger import Tagger, TokenEncoder
from trivium.models.unet import UNet
from trivium.models.vit import ViT

__all__ = [
    "LSTM",
    "MLP",
    "AttentionalLSTM",
    "Bert",
    "BertClassifier",
    "BertConfig",
    "Block",
    "CausalAttention",
    "ChainScores",
    "ConvClassifier",
    "ConvNeXt",
    "Detections",
    "Detector",
    "DetectorMaps",
    "EfficientNet",
    "EfficientNetConfig",
    "FeedForward",
    "KeyValueCache",
    "LSTMClassifier",
    "LanguageModel",
    "LinearAttention",
    "Llama",
    "LlamaConfig",
    "LowRank",
    "MixtureOfExperts",
    "Recurrence",
    "ResNet",
    "ResidualBlock",
    "SelectiveStateSpace",
    "Seq2Seq",
    "Tagger",
    "Targets",
    "TokenEncoder",
    "Translation",
    "UNet",
    "ViT",
    "add_low_rank",
    "bits_per_symbol",
    "box_iou",
    "decode",
    "detection_loss",
    "detection_targets",
    "focal_loss",
    "generalized_iou",
    "hybrid",
    "linear_transformer",
    "log_partition",
    "low_rank_weights",
    "map_boxes",
    "marginals",
    "mean_pool",
    "merge_low_rank",
    "mixture_of_experts",
    "negative_log_likelihood",
    "non_maximum_suppression",
    "page_layers",
    "path_score",
    "recurrent_model",
    "selective_model",
    "set_low_rank_weights",
    "transformer",
    "viterbi",
    "with_page_layers",
]

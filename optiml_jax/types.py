"""The words that data and model share: axis letters, batch fields, OPT's special ids.

Axis legend, used by signatures, einsums and docstrings alike:

    B batch (rows)       T query length      S key length
    N heads              H head size         D model width
    F feed-forward width V vocabulary        L layers
    E embedding width (D but for 350M)

A batch is a dict of arrays, all [B, T]:

    inputs        int32, token at position t
    targets       int32, token at position t + 1 of the same document, 0 where there is none
    loss_weights  float32, 1 where `targets` carries loss
    segment_ids   int32, 1, 2, ... per document in a row, 0 for padding
    positions     int32, restarts at 0 with every document (the model adds OPT's offset of 2)

Padding is 0 in `inputs` and `targets`: id 0 is `<s>`, which OPT text never contains (documents end
in `</s>` and nothing is prepended), and SeqIO pads with 0 everywhere. OPT's own pad id, 1, is kept
in the vocabulary and never occurs in a batch.
"""

from typing import Any

BATCH_FIELDS = ("inputs", "targets", "loss_weights", "segment_ids", "positions")
Batch = dict[str, Any]

BOS_ID = 0
PAD_ID = 1
EOS_ID = 2
UNK_ID = 3
NUM_SPECIAL_IDS = 4

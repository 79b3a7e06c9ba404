"""Renderings: form, determinism, and that a person sees what the scene says."""

import pytest
import torch

from matlib.scenes.lexicon import BACKGROUNDS, COLOURS, SHAPES, TEXTURES
from matlib.scenes.renderer import CHUNK, PLAIN_STYLE, Style, render, render_with_boxes
from matlib.scenes.scene import Scene, SceneObject, sample_scenes
from matlib.scenes.shapes import OUTLINES, PALETTE, TABLE_SIZE, distance_tables, polygon_distance

SCENES = sample_scenes(40, 31)


def _alone(shape="square", colour="red", texture="plain", size="large", background="stone"):
    return Scene((SceneObject(shape, colour, texture, size, 0.5, 0.5),), background)


@pytest.mark.parametrize("size", [16, 32, 64, 96])
def test_renderings_are_bytes_of_the_size_asked_for(size):
    images = render(SCENES[:5], 0, size=size)
    assert images.shape == (5, 3, size, size)
    assert images.dtype == torch.uint8
    assert images.float().std() > 10


def test_same_generator_gives_the_same_bytes():
    generator = torch.Generator().manual_seed(1)
    first = render(SCENES, generator)
    assert torch.equal(first, render(SCENES, torch.Generator().manual_seed(1)))
    assert torch.equal(first, render(SCENES, 1))
    assert not torch.equal(first, render(SCENES, generator))


def test_renderings_do_not_depend_on_what_is_drawn_later():
    many = [SCENES[i % len(SCENES)] for i in range(CHUNK + 20)]
    assert torch.equal(render(many, 2)[:CHUNK], render(many[:CHUNK], 2))


def test_two_renderings_of_a_scene_differ_unless_nuisance_is_off():
    first, second = render([SCENES[0]] * 2, 3)
    assert not torch.equal(first, second)
    first, second = render([SCENES[0]] * 2, 3, style=PLAIN_STYLE)
    assert torch.equal(first, second)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("background", ["sand", "night"])
def test_the_centre_of_a_plain_object_has_its_colour(colour, background):
    scene = _alone(colour=colour, background=background)
    image = render([scene], 0, style=PLAIN_STYLE)[0].float()
    centre = image[:, 30:34, 30:34].mean((1, 2))
    assert (centre - torch.tensor(PALETTE[colour])).abs().max() < 2


def test_colours_stay_apart_under_the_default_nuisance():
    colours = list(COLOURS)
    scenes = [_alone(colour=colour) for colour in colours for _ in range(60)]
    style = Style(occlusion=0)
    centres = render(scenes, 4, style=style)[:, :, 28:36, 28:36].float().mean((2, 3))
    palette = torch.tensor([PALETTE[colour] for colour in colours]).float()
    nearest = torch.cdist(centres, palette).argmin(1)
    assert (nearest == torch.arange(len(colours)).repeat_interleave(60)).float().mean() > 0.97


@pytest.mark.parametrize("size", ["small", "large"])
def test_shapes_textures_and_backgrounds_look_different(size):
    def gap(scenes):
        images = render(scenes, 0, style=PLAIN_STYLE).float().flatten(1)
        distances = torch.cdist(images, images) + 1e9 * torch.eye(len(scenes))
        return float(distances.min())

    assert gap([_alone(shape=shape, size=size) for shape in SHAPES]) > 150
    assert gap([_alone(texture=texture, size=size) for texture in TEXTURES]) > 150
    assert gap([_alone(background=name) for name in BACKGROUNDS]) > 1000


def test_objects_stand_where_the_scene_says():
    for scene in SCENES[:10]:
        image = render([scene], 0, style=PLAIN_STYLE)[0].float()
        for k in range(len(scene.objects)):
            rest = scene.objects[:k] + scene.objects[k + 1 :]
            without = render([Scene(rest, scene.background)], 0, style=PLAIN_STYLE)[0].float()
            changed = ((image - without).abs().amax(0) > 25).nonzero().float() + 0.5
            thing = scene.objects[k]
            assert (changed.mean(0) / 64 - torch.tensor([thing.y, thing.x])).abs().max() < 0.06
            extent = (changed.amax(0) - changed.amin(0)).max() / 128
            assert 0.8 * thing.radius < extent < 1.35 * thing.radius


@pytest.mark.parametrize(
    "dial", ["jitter", "viewpoint", "lighting", "texture", "colour", "noise", "palette_shift"]
)
def test_every_dial_changes_the_picture_and_more_so_when_turned_up(dial):
    clean = render(SCENES, 5, style=PLAIN_STYLE).float()

    def change(strength):
        off = dict.fromkeys(vars(PLAIN_STYLE), 0.0)
        style = Style(**(off | {dial: strength}))
        return float((render(SCENES, 5, style=style).float() - clean).abs().mean())

    assert change(0.0) == 0.0
    assert 0.0 < change(0.5) < change(1.0) * 1.05


def test_occlusion_strength_is_how_often_a_bar_is_drawn():
    clean = render(SCENES * 5, 6, style=PLAIN_STYLE)
    barred = render(SCENES * 5, 6, style=Style(0, 0, 0, 0, 0, 0, 1.0))
    changed = (clean != barred).flatten(1).any(1).float().mean()
    assert 0.25 < changed < 0.45
    assert (clean != barred).any(1).float().mean() < 0.03  # bars are small


def test_style_and_size_outside_their_range_are_refused():
    with pytest.raises(ValueError, match=r"style\.noise"):
        Style(noise=-1)
    with pytest.raises(ValueError, match="16 pixels"):
        render(SCENES[:1], 0, size=8)


def test_signed_distance_to_a_square_is_the_known_one():
    square = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    points = torch.tensor([[0.0, 0.0], [0.5, 0.2], [2.0, 0.0], [2.0, 2.0], [0.0, -3.0]])
    wanted = torch.tensor([-1.0, -0.5, 1.0, 2**0.5, 2.0])
    assert torch.allclose(polygon_distance(points, square), wanted)


def test_every_shape_has_an_inside_of_a_decent_size():
    assert set(OUTLINES) == set(SHAPES)
    share = (distance_tables() < 0).float().mean((1, 2)) * 16 / 4  # of the 2 × 2 square
    assert distance_tables().shape == (len(SHAPES), TABLE_SIZE, TABLE_SIZE)
    assert share.min() > 0.25
    assert share.max() < 0.9


def test_a_box_holds_all_that_is_drawn_of_an_object_and_no_more():
    """Against the same picture without the object: what differs, but for the soft shadow."""
    for shape in ("square", "star", "ring"):
        thing = SceneObject(shape, "red", "plain", "medium", 0.25, 0.75)
        other = SceneObject("circle", "blue", "plain", "large", 0.75, 0.25)
        both = Scene((thing, other), "night")
        images, boxes = render_with_boxes([both, Scene((other,), "night")], 0, style=PLAIN_STYLE)
        assert boxes.shape == (2, 3, 4) and bool(boxes[1, 1:].isnan().all())
        assert torch.equal(boxes[0, 1], boxes[1, 0])  # the other object stays
        left, top, right, bottom = (64 * boxes[0, 0]).int().tolist()
        red = images[0].int()[0] - images[0].int()[2] > 90  # the shadow has no colour
        lines, columns = red.nonzero().unbind(1)
        assert (left, right) == pytest.approx((int(columns.min()), int(columns.max()) + 1), abs=4)
        assert (top, bottom) == pytest.approx((int(lines.min()), int(lines.max()) + 1), abs=4)
        assert left <= columns.min() and columns.max() < right


def test_boxes_follow_jitter_and_viewpoint():
    images, boxes = render_with_boxes(SCENES, 1, style=Style(viewpoint=2, jitter=2))
    assert torch.equal(images, render(SCENES, 1, style=Style(viewpoint=2, jitter=2)))
    there = torch.tensor([len(scene.objects) for scene in SCENES])
    assert torch.equal((~boxes[..., 0].isnan()).sum(1), there)
    sides = (boxes[..., 2:] - boxes[..., :2])[~boxes[..., 0].isnan()]
    assert sides.min() > 0.1 and sides.max() < 0.5
    centres = (boxes[..., :2] + boxes[..., 2:])[:, 0] / 2
    still = torch.tensor([[scene.objects[0].x, scene.objects[0].y] for scene in SCENES])
    assert 0.01 < (centres - still).abs().max() < 0.15
